"""A decoded image as pixels."""

import pytest
from PIL import Image

from service.imaging.pixels import Decoded


@pytest.mark.parametrize(
    ("mode", "colour", "expected"),
    [("RGB", (1, 2, 3), (1, 2, 3)), ("L", 7, (7, 7, 7)), ("CMYK", (255, 0, 0, 0), (0, 255, 255))],
)
def test_pixels_are_rgb_and_read_only(mode: str, colour: tuple[int, ...] | int, expected: tuple[int, ...]) -> None:
    pixels = Decoded(Image.new(mode, (3, 2), colour)).pixels
    assert (pixels.shape, str(pixels.dtype)) == ((2, 3, 3), "uint8")
    assert not pixels.flags.writeable
    assert (pixels == expected).all()
