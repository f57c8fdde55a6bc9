"""Drawn photographs of five kinds that a small network can tell apart."""

import io
import math
from pathlib import Path

import numpy as np
from PIL import Image, ImageCms, ImageDraw

CLASS_NAMES = ("daisy", "dandelion", "roses", "sunflowers", "tulips")
_PETALS = ((250, 250, 250), (245, 210, 30), (200, 20, 50), (240, 160, 10), (190, 60, 200))
_HEARTS = ((240, 200, 20), (235, 180, 20), (120, 10, 30), (70, 40, 20), (90, 150, 60))
_NUM_PETALS = (12, 40, 6, 20, 3)


def draw_photograph(class_index: int, seed: int, size: tuple[int, int] = (320, 240)) -> Image.Image:
    """One flower on noisy ground: RGB, `size` is (width, height) in pixels; the same arguments draw the same pixels."""
    random = np.random.default_rng((class_index, seed))
    width, height = size
    # Coarse patches under fine noise: each photograph has its own ground, so none is a near-duplicate of another.
    coarse = Image.fromarray(random.integers(0, 110, size=(6, 8, 3), dtype=np.uint8))
    patches = coarse.resize(size, Image.Resampling.BICUBIC)
    ground = np.asarray(patches, np.int64) + random.integers(0, 40, size=(height, width, 3)) + np.array([0, 40, 10])
    image = Image.fromarray(ground.astype(np.uint8))
    draw = ImageDraw.Draw(image)
    radius = min(size) * random.uniform(0.25, 0.42)
    center_x = width / 2 + random.uniform(-0.1, 0.1) * width
    center_y = height / 2 + random.uniform(-0.1, 0.1) * height
    turn = random.uniform(0, 2 * math.pi)
    petal = radius * 1.6 / math.sqrt(_NUM_PETALS[class_index])
    for index in range(_NUM_PETALS[class_index]):
        angle = turn + 2 * math.pi * index / _NUM_PETALS[class_index]
        x, y = center_x + radius * 0.6 * math.cos(angle), center_y + radius * 0.6 * math.sin(angle)
        draw.ellipse((x - petal, y - petal, x + petal, y + petal), fill=_PETALS[class_index])
    heart = radius * 0.3
    draw.ellipse((center_x - heart, center_y - heart, center_x + heart, center_y + heart), fill=_HEARTS[class_index])
    return image


def encode(image: Image.Image, image_format: str = "JPEG", **options: object) -> bytes:
    """The bytes of a file in `image_format`, with Pillow's own options."""
    buffer = io.BytesIO()
    image.save(buffer, image_format, **options)
    return buffer.getvalue()


def srgb_profile() -> bytes:
    """The bytes of an sRGB profile, without the time of its making."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    return profile[:24] + bytes(12) + profile[36:]


def profile_with_red_and_green_exchanged() -> bytes:
    """The bytes of an sRGB profile under another name, its red primary's entry renamed to green and back."""
    renamed = srgb_profile().replace("sRGB".encode("utf-16-be"), "xRGB".encode("utf-16-be"))
    return renamed.replace(b"rXYZ", b"....", 1).replace(b"gXYZ", b"rXYZ", 1).replace(b"....", b"gXYZ", 1)


def draw_folder(folder: Path, photographs_per_class: int, size: tuple[int, int] = (320, 240)) -> Path:
    """A folder of class folders with `photographs_per_class` drawn JPEGs each; returns `folder`."""
    for class_index, label in enumerate(CLASS_NAMES):
        (folder / label).mkdir(parents=True)
        for seed in range(photographs_per_class):
            path = folder / label / f"{seed:03d}.jpg"
            path.write_bytes(encode(draw_photograph(class_index, seed, size), quality=90))
    return folder
