"""What is told of a file before any decoder sees it."""

import time

import pytest
from PIL import Image
from support.drawing import draw_photograph, encode
from support.handmade import jpeg_segment, png, png_chunk, with_segments
from support.hostile_files import tiff

from service.errors import InvalidImage
from service.imaging.decode import decode_square
from service.imaging.inspection import Inspection, inspect, is_quick
from service.imaging.limits import ImageLimits, ResizeRule

PICTURE = draw_photograph(1, 1, (48, 36))
LIMITS = ImageLimits()


@pytest.mark.parametrize(
    ("image_format", "options", "num_pixels", "max_pixels", "is_memory_bounded"),
    [
        ("JPEG", {}, 48 * 36, 48 * 36, True),
        ("PNG", {}, 48 * 36, 48 * 36, True),
        ("GIF", {}, 48 * 36, 48 * 36, True),
        ("BMP", {}, 48 * 36, 48 * 36, True),
        ("WEBP", {}, 48 * 36, 48 * 36, True),
        ("WEBP", {"lossless": True}, 48 * 36, 48 * 36, False),
        ("TIFF", {}, 48 * 36, 48 * 36, False),
        ("AVIF", {}, 0, 50_000_000, False),
    ],
)
def test_a_file_is_inspected_without_a_decoder(
    image_format: str,
    options: dict[str, bool],
    num_pixels: int,
    max_pixels: int,
    is_memory_bounded: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An AVIF whose orientation is two million numbers takes five seconds to open."""
    data = encode(PICTURE, image_format, **options)
    monkeypatch.setattr(Image, "open", lambda *_, **__: pytest.fail("it was opened"))
    inspection = inspect(data, LIMITS)
    assert (inspection.format, inspection.num_pixels, inspection.max_pixels) == (image_format, num_pixels, max_pixels)
    assert (inspection.is_memory_bounded, inspection.limits) == (is_memory_bounded, LIMITS)
    assert (inspection.jpeg is None) == (image_format != "JPEG")


def test_a_large_jpeg_counts_as_it_is_decoded() -> None:
    assert inspect(encode(Image.new("L", (4096, 3072))), LIMITS).num_pixels == 4096 * 3072 // 16


def test_a_field_that_stops_early_is_an_invalid_image() -> None:
    with pytest.raises(InvalidImage, match="GIF image cannot be read"):
        inspect(b"GIF89a\1", LIMITS)


def test_an_opened_image_is_no_larger_than_inspected() -> None:
    """The lane that decodes it was chosen for its announced size."""
    with pytest.raises(InvalidImage, match="larger than its header says"):
        decode_square(encode(PICTURE, "PNG"), ResizeRule(), Inspection("PNG", 48 * 36 - 1, True, LIMITS))


MANY_CHUNKS = png(2, 2, bytes(14), before=png_chunk(b"abCd", b"") * 2_600)
MANY_SEGMENTS = with_segments(encode(PICTURE), jpeg_segment(0xFE, bytes(120)) * 1_900)
GIF = encode(PICTURE, "GIF")
MANY_REMARKS = GIF[: 13 + 768] + b"!\xfe" + b"\1." * 16_000 + b"\0" + GIF[13 + 768 :]
SIZES = [(256, 4, 1, 8), (257, 4, 1, 8), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1), (277, 3, 1, 1)]
MANY_NUMBERS = tiff([*SIZES, *[(273, 1, 65_536, 8)] * 900], tail=bytes(100_000))


@pytest.mark.parametrize("data", [MANY_CHUNKS, MANY_SEGMENTS, MANY_REMARKS], ids=["PNG", "JPEG", "GIF"])
def test_a_quick_inspection_is_quick_whatever_the_file_holds(data: bytes) -> None:
    """It runs on the event loop. Here it has ten times what it takes."""
    assert is_quick(data)
    begun_s = time.thread_time()
    inspect(data, LIMITS)
    assert time.thread_time() - begun_s < 0.03


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (encode(PICTURE), True),
        (encode(PICTURE) + bytes(256 * 1024), False),
        (encode(PICTURE, "PNG"), True),
        (encode(PICTURE, "PNG") + bytes(32 * 1024), False),
        (MANY_NUMBERS, False),
        (encode(PICTURE, "TIFF", big_tiff=True), False),
        (b"MM\0*", False),
        (b"", True),
    ],
    ids=["JPEG", "long JPEG", "PNG", "long PNG", "TIFF", "BigTIFF", "big-endian TIFF", "empty"],
)
def test_long_files_and_tiffs_are_inspected_elsewhere(data: bytes, expected: bool) -> None:
    assert is_quick(data) is expected
