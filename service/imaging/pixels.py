"""Images inside the program: decoded ones, and arrays of pixels."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from service.imaging.limits import ImageLimits as ImageLimits
from service.imaging.limits import ResizeRule as ResizeRule

Pixels = NDArray[np.uint8]
"""uint8, shape (height, width, 3), RGB, 0-255; a leading axis N makes a batch (NHWC)."""


@dataclass(frozen=True, eq=False)
class Decoded:
    """A decoded image with the colour profile that its numbers are meant in. The profile is not applied yet.

    Digest, evaluation, training cache and serving all start from it: `pixels` identify a photograph, and `resize`
    makes the sRGB pixels that a network sees.

    Attributes:
        image: upright, on white, 8 bits per channel. The mode is L, RGB or CMYK.
        profile: an ICC profile, or None. It may be broken, or belong to another mode.
    """

    image: Image.Image
    profile: bytes | None = None

    @property
    def pixels(self) -> Pixels:
        """A copy of the image as it is without its profile: uint8, shape (height, width, 3), RGB, read-only."""
        return np.asarray(as_rgb(self.image))


def as_rgb(image: Image.Image) -> Image.Image:
    """Convert to mode RGB without a profile. An image in that mode is returned itself."""
    return image if image.mode == "RGB" else image.convert("RGB")
