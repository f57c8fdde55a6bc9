"""Drawn photographs, for machines without real ones."""

import io
from pathlib import Path

import numpy as np
from PIL import Image


def draw_photograph(seed: int, size: tuple[int, int] = (320, 240)) -> bytes:
    """Return a JPEG of coloured patches under fine noise. `size` is (width, height) in pixels."""
    random = np.random.default_rng(seed)
    coarse = Image.fromarray(random.integers(0, 200, (6, 8, 3), np.uint8)).resize(size, Image.Resampling.BICUBIC)
    pixels = np.asarray(coarse) // 2 + random.integers(0, 40, (size[1], size[0], 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def draw_folder(folder: Path, photographs_per_class: int, size: tuple[int, int]) -> None:
    """Write five class folders of drawn JPEGs."""
    for number, label in enumerate(("daisy", "dandelion", "roses", "sunflowers", "tulips")):
        (folder / label).mkdir(parents=True)
        for seed in range(photographs_per_class):
            (folder / label / f"{seed:03d}.jpg").write_bytes(draw_photograph(1000 * number + seed, size))
