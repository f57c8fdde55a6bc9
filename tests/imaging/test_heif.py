"""HEIC photographs, where the library is installed: their pixels, and their place among the formats."""

import sys

import numpy as np
import pytest
from support.heic import CRASHES, HEIC, needs_library

from service.errors import ImageTooLarge, InvalidImage
from service.imaging.decode import decode_image
from service.imaging.formats import detect_format
from service.imaging.heif import can_read_heif, decode_apart, load_heif
from service.imaging.inspection import inspect
from service.imaging.limits import ImageLimits

RED, GREEN, BLUE, WHITE = (200, 40, 60), (40, 160, 80), (60, 80, 220), (255, 255, 255)


def assert_corners(name: str, *colours: tuple[int, int, int]) -> None:
    """Compare upper left, upper right, lower left and lower right with the colours."""
    pixels = decode_image(HEIC[name]).pixels
    found = [pixels[y, x] for y in (8, -8) for x in (8, -8)]
    np.testing.assert_allclose(found, colours, atol=6)


@needs_library
@pytest.mark.parametrize(
    ("name", "size", "colours"),
    [
        ("rgb", (96, 64), (GREEN, RED, RED, BLUE)),
        ("turned", (64, 96), (RED, GREEN, BLUE, RED)),
        ("rgba", (96, 64), (GREEN, RED, WHITE, BLUE)),
        ("grey", (96, 64), ((115,) * 3, (90,) * 3, (90,) * 3, (90,) * 3)),
    ],
)
def test_a_photograph_is_upright_and_on_white(
    name: str, size: tuple[int, int], colours: tuple[tuple[int, int, int], ...]
) -> None:
    assert decode_image(HEIC[name]).image.size == size
    assert_corners(name, *colours)


@needs_library
def test_its_header_does_not_bound_its_memory() -> None:
    inspection = inspect(HEIC["rgb"], ImageLimits())
    assert (inspection.format, inspection.is_memory_bounded) == ("HEIF", False)
    assert inspection.max_pixels == ImageLimits().max_image_pixels


@needs_library
@pytest.mark.parametrize("brand", [b"heic", b"heix", b"mif1", b"msf1", b"hevc"])
def test_its_brand_tells_it(brand: bytes) -> None:
    assert detect_format(b"\0\0\0\x18ftyp" + brand + b"\0\0\0\0miafmiaf") == "HEIF"


@needs_library
def test_a_broken_photograph_is_at_fault() -> None:
    data = HEIC["rgb"]
    for broken in (data[:-100], data[:300], data[:40], data[:-1], data[:28] + bytes(500)):
        with pytest.raises(InvalidImage, match="HEIF image cannot be read"):
            decode_image(broken)


@needs_library
def test_a_file_that_crashes_the_library_is_at_fault() -> None:
    with pytest.raises(InvalidImage, match="crashes its decoder"):
        decode_image(CRASHES)
    with pytest.raises(InvalidImage, match="takes too long"):
        decode_apart(HEIC["rgb"], 10_000, timeout_s=0.001)


@needs_library
def test_too_many_pixels_are_refused_before_decoding() -> None:
    with pytest.raises(ImageTooLarge, match="6,144 pixels"):
        decode_image(HEIC["rgb"], ImageLimits(max_image_pixels=6_143))


def test_without_the_library_nothing_is_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pi_heif", None)
    assert not can_read_heif()
    with pytest.raises(ImportError):
        load_heif()
