"""Limits that an image obeys, and the rule that makes it square. Settings and metadata name these types."""

from dataclasses import dataclass

PIXEL_BYTES = 17
"""Most memory that a decoder takes for each pixel of an image that is what it says."""


@dataclass(frozen=True)
class ImageLimits:
    """Most that one image may ask of the machine: bytes of the file, and width x height that is decoded.

    A JPEG that its decoder shrinks counts as shrunk.
    """

    max_image_bytes: int = 20 * 1024 * 1024
    max_image_pixels: int = 50_000_000


@dataclass(frozen=True)
class ResizeRule:
    """Rule that makes an image (image_size, image_size, 3). A version's metadata hold it.

    The shorter side is scaled to `shorter_side` pixels, and the centre square of `image_size` is kept.
    """

    image_size: int = 224
    shorter_side: int = 256
