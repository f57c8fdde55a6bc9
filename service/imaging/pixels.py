"""What an image is inside the program: arrays of pixels, the limits they obey, and the rule that makes them square."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]
"""uint8, shape (height, width, 3), RGB, 0-255; a leading axis N makes a batch (NHWC)."""


@dataclass(frozen=True)
class ImageLimits:
    """How much one image may ask of the machine.

    `max_image_bytes` bounds the file (bytes), `max_image_pixels` the decoded picture (width x height, from the header).
    """

    max_image_bytes: int = 20 * 1024 * 1024
    max_image_pixels: int = 50_000_000


@dataclass(frozen=True)
class ResizeRule:
    """How a picture becomes (image_size, image_size, 3): shorter side to `shorter_side`, then the centre square.

    Both in pixels. The rule is stored in a version's metadata; evaluation and serving read it from there.
    """

    image_size: int = 224
    shorter_side: int = 256
