"""Limits that an image obeys, and the rule that makes it square. Settings and metadata name these types."""

from dataclasses import dataclass

PIXEL_BYTES = 17
"""Most memory that a decoder takes for each pixel of an image that is what it says."""


@dataclass(frozen=True)
class ImageLimits:
    """Most that one image may ask of the machine.

    Attributes:
        max_image_bytes: Bytes of the file.
        max_image_pixels: Width x height that is decoded, as the header says it. A JPEG that its decoder shrinks counts
            as shrunk.
    """

    max_image_bytes: int = 20 * 1024 * 1024
    max_image_pixels: int = 50_000_000


@dataclass(frozen=True)
class ResizeRule:
    """Rule that makes an image (image_size, image_size, 3). A version's metadata hold it.

    Attributes:
        image_size: Side of the centre square, in pixels.
        shorter_side: Length that the shorter side is scaled to first, in pixels.
    """

    image_size: int = 224
    shorter_side: int = 256
