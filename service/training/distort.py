"""Distortions of a view: quarter turns, grey, blur, noise, small sizes, JPEG and borders, as photographs meet them."""

import io

import numpy as np
from PIL import Image, ImageFilter

MAX_BLUR = 0.022
"""Largest standard deviation of the blur, as a share of the side."""

_SIDES = 36, 200  # pixels of a small copy
_QUALITIES = 15, 90  # of JPEG
_LEVELS = 4.0, 24.0  # standard deviation of the noise
_FILLED = 0.45, 0.9  # share of the side that the view keeps inside a border
_TURNS = (Image.Transpose.ROTATE_90, Image.Transpose.ROTATE_180, Image.Transpose.ROTATE_270)


def turn(view: Image.Image, random: np.random.Generator) -> Image.Image:
    """Turn a square view by one, two or three quarters."""
    return view.transpose(_TURNS[int(random.integers(3))])


def make_grey(view: Image.Image) -> Image.Image:
    """Take the colours out of an RGB view. It stays RGB."""
    return view.convert("L").convert("RGB")


def degrade(view: Image.Image, random: np.random.Generator) -> Image.Image:
    """Blur an RGB view, make it noisy, enlarge a small copy of it, or compress it. One of the four, at random."""
    return (_blur, _make_noisy, _shrink, _compress)[int(random.integers(4))](view, random)


def add_border(view: Image.Image, random: np.random.Generator) -> Image.Image:
    """Shrink an RGB view onto a plain ground of the same size, as a screenshot or a padded copy has it."""
    width, height = view.size
    share, other = random.uniform(*_FILLED), random.uniform(*_FILLED)
    size = (width, round(height * share)) if random.random() < 0.5 else (round(width * share), round(height * other))
    left, top = (int(random.integers(whole - part + 1)) for whole, part in zip(view.size, size, strict=True))
    level = int(random.choice(np.array([0, 255, random.integers(256)])))
    ground = Image.new("RGB", view.size, (level, level, level))
    ground.paste(view.resize(size, Image.Resampling.BILINEAR), (left, top))
    return ground


def _blur(view: Image.Image, random: np.random.Generator) -> Image.Image:
    return view.filter(ImageFilter.GaussianBlur(random.uniform(0, MAX_BLUR) * view.width))


def _make_noisy(view: Image.Image, random: np.random.Generator) -> Image.Image:
    pixels = np.asarray(view, np.float32)
    noise = random.standard_normal(pixels.shape, np.float32) * np.float32(random.uniform(*_LEVELS))
    return Image.fromarray(np.clip(np.rint(pixels + noise), 0, 255).astype(np.uint8))


def _shrink(view: Image.Image, random: np.random.Generator) -> Image.Image:
    side = int(random.integers(*_SIDES))
    small = view.resize((side, side), Image.Resampling.BILINEAR)
    return small.resize(view.size, Image.Resampling.BILINEAR)


def _compress(view: Image.Image, random: np.random.Generator) -> Image.Image:
    stream = io.BytesIO()
    view.save(stream, "JPEG", quality=int(random.integers(*_QUALITIES)))
    return Image.open(stream).convert("RGB")
