"""JPEG: half an image is none, rare kinds are named, and what is decoded is counted."""

import io
import struct
from typing import Any

import numpy as np
import pytest
from PIL import Image
from support.drawing import draw_photograph, encode
from support.odd_files import scans

from service.errors import ImageTooLarge, InvalidImage, UnsupportedImageFormat
from service.imaging.decode import decode_image
from service.imaging.jpeg import MAX_JPEG_PIXELS, read_jpeg
from service.imaging.limits import ImageLimits

PICTURE = draw_photograph(2, 3, (320, 240))
KINDS: dict[str, dict[str, Any]] = {
    "baseline": {},
    "with restarts": {"restart_marker_blocks": 4},
    "with optimised tables": {"optimize": True},
    "full colour": {"subsampling": 0, "quality": 95},
    "coarse": {"quality": 5},
}


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("kind", KINDS)
def test_scan_data_that_end_early_are_refused(kind: str, mode: str) -> None:
    data = encode(PICTURE.convert(mode), **KINDS[kind])
    assert decode_image(data).pixels.shape == (240, 320, 3)
    scan = data.rindex(b"\xff\xda") + 14
    for share in (0.0, 0.3, 0.6, 0.9, 0.97):
        end = scan + int((len(data) - scan) * share)
        with pytest.raises(InvalidImage, match="Send the whole file again"):
            decode_image(data[:end].rstrip(b"\xff") + b"\xff\xd9")


def test_a_whole_jpeg_has_its_decoder_s_pixels() -> None:
    """The end mark is taken away before, so that the decoder asks for what is missing."""
    for options in KINDS.values():
        data = encode(PICTURE, **options)
        assert not read_jpeg(data).without_end(data).endswith(b"\xff\xd9")
        assert np.array_equal(decode_image(data).pixels, decode_image(data + b"rubbish").pixels)


def test_a_progressive_jpeg_without_later_scans_is_refused() -> None:
    data = encode(PICTURE, progressive=True)
    starts = [place for place in range(len(data)) if data[place : place + 2] == b"\xff\xda"]
    assert len(starts) == 10
    for start in starts[1:]:
        with pytest.raises(InvalidImage, match="cut short"):
            decode_image(data[:start] + b"\xff\xd9")


def with_frame(data: bytes, marker: int, precision: int = 8) -> bytes:
    at = data.index(b"\xff\xc0")
    return data[:at] + bytes([0xFF, marker]) + data[at + 2 : at + 4] + bytes([precision]) + data[at + 5 :]


@pytest.mark.parametrize("size", [(320, 240), (1100, 1100)])
@pytest.mark.parametrize(
    ("marker", "precision", "words"),
    [(0xC3, 8, "lossless"), (0xC9, 8, "arithmetic"), (0xC5, 8, "hierarchical"), (0xC1, 12, "12 bits")],
)
def test_a_rare_jpeg_is_named_at_every_size(marker: int, precision: int, words: str, size: tuple[int, int]) -> None:
    with pytest.raises(UnsupportedImageFormat, match=rf"{words}.*\. .* Send it as JPEG or PNG"):
        decode_image(with_frame(encode(PICTURE.resize(size)), marker, precision))


def resized(data: bytes, width: int, height: int) -> bytes:
    """A JPEG that says it has another size. Its data do not reach."""
    at = next(place for place in range(len(data)) if data[place : place + 2] in (b"\xff\xc0", b"\xff\xc2"))
    return data[: at + 5] + struct.pack(">HH", height, width) + data[at + 9 :]


@pytest.mark.parametrize(
    ("size", "decoded"),
    [
        ((8064, 6048), (1008, 756)),
        ((12_000, 9_000), (1500, 1125)),
        ((16_382, 3_628), (4_096, 907)),
        ((9_000, 2_047), (4_500, 1_024)),
        ((1_023, 4_000), (1_023, 4_000)),
    ],
)
def test_a_jpeg_counts_as_what_it_is_decoded_to(size: tuple[int, int], decoded: tuple[int, int]) -> None:
    data = resized(encode(PICTURE), *size)
    assert read_jpeg(data).num_pixels == decoded[0] * decoded[1]
    with Image.open(io.BytesIO(data)) as file:
        file.draft(None, (512, 512))
        assert file.size == decoded


def test_the_coefficients_of_a_progressive_jpeg_count() -> None:
    """Three bytes for each pixel with halved colours, six without; a pixel counts as 17 bytes."""
    halved, full = (encode(PICTURE, progressive=True, subsampling=way) for way in ("4:2:0", "4:4:4"))
    assert read_jpeg(resized(halved, 12_000, 9_000)).num_pixels == 3 * 108_000_000 // 17
    assert read_jpeg(resized(full, 12_000, 9_000)).num_pixels == 6 * 108_000_000 // 17
    with pytest.raises(ImageTooLarge, match=r"70\.5882 million pixels to decode\. Up to 50 million are taken"):
        decode_image(resized(full, 20_000, 10_000))


def test_no_jpeg_has_more_pixels_than_200_million() -> None:
    assert MAX_JPEG_PIXELS == 200_000_000
    assert read_jpeg(resized(encode(PICTURE), 20_000, 10_000)).num_pixels == 2_500 * 1_250
    with pytest.raises(
        ImageTooLarge, match=r"JPEG image has 200\.02 million pixels\. Up to 200 million are taken\. Send"
    ):
        decode_image(resized(encode(PICTURE), 20_002, 10_000), ImageLimits(max_image_pixels=10**9))


def test_a_photograph_of_50_million_pixels_is_decoded() -> None:
    data = encode(Image.linear_gradient("L").resize((8192, 6144)), quality=50)
    decoded = decode_image(data, ImageLimits(max_image_pixels=1_000_000))
    assert decoded.image.size == (1024, 768)


@pytest.mark.parametrize(
    ("num_scans", "size", "is_read"),
    [(100, (48, 36), True), (10, (20_000, 10_000), True), (20, (10_000, 10_000), True), (21, (8_000, 5_900), True),
     (101, (48, 36), False), (11, (20_000, 10_000), False), (21, (8_000, 6_000), False)],
)  # fmt: skip
def test_scans_are_bounded_as_documented(num_scans: int, size: tuple[int, int], is_read: bool) -> None:
    data = resized(scans(num_scans), *size)
    if is_read:
        assert read_jpeg(data).num_pixels > 0
    else:
        with pytest.raises(InvalidImage, match="more scans than it needs"):
            read_jpeg(data)
