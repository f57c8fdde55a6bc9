"""TIFF: what is answered is the image that was drawn; every other combination is refused as a kind that is not read."""

import itertools
import struct

import numpy as np
import pytest
from numpy.typing import NDArray
from support.drawing import draw_photograph, encode
from support.tiffs import (
    BLACK_IS_ZERO,
    BLOCK,
    CMYK,
    COLOURS,
    COMPRESSIONS,
    GREY,
    INKS,
    KINDS,
    RGB,
    SIDE,
    Kind,
    tiff,
    wide,
)

from service.errors import InvalidImage, UnsupportedImageFormat
from service.imaging.decode import decode_image


@pytest.mark.parametrize("name", KINDS)
def test_each_kind_is_decoded_rightly_or_refused(name: str) -> None:
    kind, num_read = KINDS[name], 0
    for order, compression, is_apart, is_tiled in itertools.product("<>", COMPRESSIONS, (False, True), (False, True)):
        where = f"{order} {compression}, apart: {is_apart}, tiled: {is_tiled}"
        try:
            pixels = decode_image(tiff(kind, order, compression, is_apart=is_apart, is_tiled=is_tiled)).pixels
        except UnsupportedImageFormat:
            continue
        assert kind.expected is not None, f"{where}: it was answered"
        assert np.abs(pixels.astype(int) - kind.expected).max() <= 2, where
        num_read += 1
    assert bool(num_read) == kind.is_read
    if kind.is_read:
        assert num_read >= 6, "in little-endian order, together, it is read"


@pytest.mark.parametrize("more", [(254, (1,)), (254, (4,)), (255, (2,))], ids=["thumbnail", "mask", "old thumbnail"])
def test_a_first_page_without_an_own_image_is_refused(more: tuple[int, tuple[int, ...]]) -> None:
    with pytest.raises(UnsupportedImageFormat, match=r"begins with a thumbnail or a mask\. .* Send the image itself"):
        decode_image(tiff(Kind(RGB, COLOURS, RGB, more=(more,))))


def test_a_page_of_several_is_read() -> None:
    assert np.array_equal(decode_image(tiff(Kind(RGB, COLOURS, RGB, more=((254, (2,)),)))).pixels, RGB)


@pytest.mark.parametrize(("size", "is_read"), [(SIDE // 2, True), (SIDE * 2, False)])
def test_a_page_with_a_larger_image_inside_is_refused(size: int, is_read: bool) -> None:
    kind = Kind(RGB, COLOURS, RGB)
    inner_at = len(tiff(Kind(RGB, COLOURS, RGB, more=((330, (1,)),))))
    data = tiff(Kind(RGB, COLOURS, RGB, more=((330, (inner_at,)),)))
    data += struct.pack("<HHHIIHHIII", 2, 256, 4, 1, size, 257, 4, 1, size, 0)
    if is_read:
        assert np.array_equal(decode_image(data).pixels, decode_image(tiff(kind)).pixels)
    else:
        with pytest.raises(UnsupportedImageFormat, match="begins with a thumbnail"):
            decode_image(data)


@pytest.mark.parametrize("samples", [GREY, RGB, CMYK], ids=["grey", "RGB", "CMYK"])
def test_12_bits_in_words_of_16_are_refused(samples: NDArray[np.uint8]) -> None:
    photometric = {1: BLACK_IS_ZERO, 3: COLOURS, 4: INKS}[samples.shape[-1]]
    dark = samples.astype(np.uint16) * 16
    for order in "<>":
        with pytest.raises(
            UnsupportedImageFormat, match=r"12 bits or fewer in words of 16\. .* Scale them to 0-65,535"
        ):
            decode_image(tiff(Kind(dark, photometric, None, 16), order))


@pytest.mark.parametrize("most", [1_023, 4_095, 16_383])
def test_16_bit_numbers_with_a_small_maximum_are_refused(most: int) -> None:
    kind = Kind(wide(GREY // 5), BLACK_IS_ZERO, None, 16, ((281, (most,)),))
    with pytest.raises(UnsupportedImageFormat, match="fewer than 16 bits"):
        decode_image(tiff(kind))


def test_a_black_16_bit_page_is_black() -> None:
    assert not decode_image(tiff(Kind(np.zeros_like(wide(GREY)), BLACK_IS_ZERO, None, 16))).pixels.any()


def changed(data: bytes, tag: int, values: tuple[int, ...]) -> bytes:
    """The page with other numbers of four bytes in an entry that has as many."""
    (start,) = struct.unpack_from("<I", data, 4)
    (num_entries,) = struct.unpack_from("<H", data, start)
    for at in range(start + 2, start + 2 + 12 * num_entries, 12):
        found, _, count, place = struct.unpack_from("<HHII", data, at)
        if found == tag:
            assert count >= len(values)
            body = struct.pack(f"<{len(values)}I", *values)
            data = data[: at + 4] + struct.pack("<I", len(values)) + data[at + 8 :]
            return data[:place] + body + data[place + len(body) :]
    raise AssertionError(tag)


def test_strips_that_are_missing_are_missed() -> None:
    data = tiff(KINDS["RGB"])
    size, first = SIDE * BLOCK * 3, 8
    assert np.array_equal(decode_image(data).pixels, RGB)
    for tag, values in (
        (273, (first, first + size)),
        (279, (size, size, size - 3)),
        (273, (first, first + size, len(data) - 9)),
    ):
        with pytest.raises(InvalidImage, match="TIFF image is cut short"):
            decode_image(changed(data, tag, values))


def test_jpeg_strips_that_end_early_are_missed() -> None:
    data = encode(draw_photograph(2, 3, (320, 240)), "TIFF", compression="jpeg")
    assert decode_image(data).pixels.shape == (240, 320, 3)
    with pytest.raises(InvalidImage, match="TIFF image is cut short"):
        decode_image(data.replace(b"\xff\xd9", b"\xff\0"))
