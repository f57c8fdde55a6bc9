"""Squares of the peers, by our rule and filter, with `Image.open` as in tutorials.

It needs Pillow and numpy alone, as it runs in the environment of each peer.
"""

import io
from typing import BinaryIO

import numpy as np
from PIL import Image

IMAGE_SIZE, SHORTER_SIDE = 224, 256


def read_square(file: bytes | BinaryIO) -> np.ndarray:
    """Return the centre square of a file, uint8 (224, 224, 3), RGB."""
    image = Image.open(io.BytesIO(file) if isinstance(file, bytes) else file)
    return square(image)


def square(image: Image.Image) -> np.ndarray:
    """Return the centre square of an image, uint8 (224, 224, 3), RGB."""
    width, height = image.size
    side = min(width, height) * IMAGE_SIZE / SHORTER_SIDE
    left, top = (width - side) / 2, (height - side) / 2
    box = (left, top, left + side, top + side)
    return np.asarray(image.convert("RGB").resize((IMAGE_SIZE, IMAGE_SIZE), Image.Resampling.BILINEAR, box=box))
