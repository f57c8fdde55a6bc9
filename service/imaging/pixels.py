"""Images inside the program: decoded ones, arrays of pixels, the limits they obey, the rule that makes them square."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Pixels = NDArray[np.uint8]
"""uint8, shape (height, width, 3), RGB, 0-255; a leading axis N makes a batch (NHWC)."""

PIXEL_BYTES = 17
"""Memory that a decoder takes at the most for each pixel of an image that is what it says."""


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


@dataclass(frozen=True)
class ImageLimits:
    """How much one image may ask of the machine.

    `max_image_bytes` bounds the file (bytes). `max_image_pixels` bounds what is decoded (width x height, from the
    header). A JPEG that its decoder shrinks counts as shrunk.
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
