"""PNG: broken notes are passed over, the transparent colour is white, and half an image is none."""

import struct
import zlib

import numpy as np
import pytest
from support.drawing import draw_photograph
from support.handmade import png, png_chunk

from service.errors import InvalidImage, UnsupportedImageFormat
from service.imaging.decode import decode_image

PIXELS = np.asarray(draw_photograph(2, 3, (32, 24)))
ROWS = b"".join(b"\0" + row.tobytes() for row in PIXELS)
NOTES = {
    b"tEXt": b"Comment\0a garden",
    b"zTXt": b"Comment\0\0" + zlib.compress(b"a garden"),
    b"iTXt": b"Comment\0\0\0\0\0rose",
    b"iCCP": b"profile\0\0" + zlib.compress(b"none"),
    b"tRNS": struct.pack(">3H", *map(int, PIXELS[0, 0])),
    b"pHYs": struct.pack(">IIB", 3000, 3000, 1),
    b"gAMA": struct.pack(">I", 45455),
    b"cHRM": bytes(32),
    b"sRGB": b"\0",
    b"eXIf": b"MM\0*\0\0\0\x08\0\0\0\0\0\0",
    b"prVt": b"private",
}


def damaged(chunk: bytes) -> bytes:
    return chunk[:-1] + bytes([chunk[-1] ^ 1])


@pytest.mark.parametrize("kind", NOTES)
def test_a_note_with_a_wrong_checksum_is_passed_over(kind: bytes) -> None:
    note = damaged(png_chunk(kind, NOTES[kind]))
    before, end = png(32, 24, ROWS, before=note), png_chunk(b"IEND", b"")
    behind = png(32, 24, ROWS).removesuffix(end) + note + end
    assert np.array_equal(decode_image(before).pixels, PIXELS)
    assert np.array_equal(decode_image(behind).pixels, PIXELS)


@pytest.mark.parametrize(
    ("kind", "note"),
    [
        *[(kind, b"") for kind in NOTES],
        (b"zTXt", b"Comment\0\7rubbish"),
        (b"iCCP", b"profile\0\7rubbish"),
        (b"tEXt", b"transparency\0yes"),
        (b"tEXt", b"bbox\0yes"),
        (b"acTL", b"\0"),
        (b"fcTL", bytes(26)),
        (b"tRNS", b"\0\1"),
    ],
)
def test_a_note_that_makes_no_sense_is_passed_over(kind: bytes, note: bytes) -> None:
    assert np.array_equal(decode_image(png(32, 24, ROWS, before=png_chunk(kind, note))).pixels, PIXELS)


@pytest.mark.parametrize("kind", [b"PLTE", b"IDAT"])
def test_a_wrong_checksum_of_what_is_needed_is_refused(kind: bytes) -> None:
    with pytest.raises(InvalidImage):
        decode_image(png(32, 24, ROWS, before=damaged(png_chunk(kind, bytes(9)))))


@pytest.mark.parametrize("is_interlaced", [False, True])
@pytest.mark.parametrize("is_beyond", [False, True], ids=["exact", "with bits beyond the depth"])
@pytest.mark.parametrize(("colour_type", "bit_depth"), [(0, 1), (0, 2), (0, 4), (0, 8), (0, 16), (2, 8), (2, 16)])
def test_only_the_transparent_colour_becomes_white(
    colour_type: int, bit_depth: int, is_beyond: bool, is_interlaced: bool
) -> None:
    most = 2**bit_depth - 1
    greys = {0, most // 3, 2 * most // 3, most} | ({21_845 - 1} if bit_depth == 16 else set())
    colours: list[tuple[int, ...]] = [(grey,) for grey in sorted(greys)]
    if colour_type == 2:
        colours = [(0, 0, 0), (most // 3, most // 2, 9), (most // 3, most // 2, 8), (most, 0, most)]
    # Of interlaced images one pixel each, which is a single pass.
    rows = [[colour] for colour in colours] if is_interlaced else [[colour for colour in colours for _ in range(8)]]
    for number, transparent in enumerate(colours):
        beyond = 0x8000 | 1 << bit_depth if is_beyond and 1 < bit_depth < 16 else 0
        note = png_chunk(b"tRNS", struct.pack(f">{len(transparent)}H", *(value | beyond for value in transparent)))
        for row in rows if not is_interlaced else [rows[number]]:
            bits = "".join(f"{value:0{bit_depth}b}" for colour in row for value in colour)
            packed = int(bits.ljust(-len(bits) // 8 * -8, "0"), 2).to_bytes((len(bits) + 7) // 8, "big")
            opaque, found = (
                decode_image(
                    png(
                        len(row), 1, b"\0" + packed, before=before,
                        bit_depth=bit_depth, colour_type=colour_type, interlaced=is_interlaced,
                    )
                ).pixels[0]
                for before in (b"", note)
            )  # fmt: skip
            is_it = np.array([colour == transparent for colour in row])
            assert (found[is_it] == 255).all()
            assert np.array_equal(found[~is_it], opaque[~is_it])


@pytest.mark.parametrize("missing", [1, 20])
@pytest.mark.parametrize(("colour_type", "num_bands"), [(0, 1), (2, 3), (4, 2), (6, 4)])
def test_rows_missing_before_a_proper_end_are_noticed(colour_type: int, num_bands: int, missing: int) -> None:
    row = b"\0" + bytes(range(1, 1 + 32 * num_bands))
    assert decode_image(png(32, 24, row * 24, colour_type=colour_type)).pixels.shape == (24, 32, 3)
    with pytest.raises(InvalidImage, match=r"PNG image is cut short\. Send the whole file again"):
        decode_image(png(32, 24, row * (24 - missing), colour_type=colour_type))


def test_rows_that_are_black_are_not_missed() -> None:
    assert not decode_image(png(32, 24, bytes(97 * 24))).pixels.any()


def test_dark_16_bit_numbers_are_not_scored() -> None:
    def grey(numbers: list[int]) -> bytes:
        return png(4, 1, b"\0" + struct.pack(">4H", *numbers), bit_depth=16, colour_type=0)

    with pytest.raises(UnsupportedImageFormat, match="12 bits or fewer in words of 16"):
        decode_image(grey([0, 9, 4_000, 4_095]))
    assert decode_image(grey([0, 9, 4_000, 4_096])).pixels.max() == 16
    assert not decode_image(grey([0, 0, 0, 0])).pixels.any()


@pytest.mark.parametrize(("colour_type", "num_colours"), [(4, 1), (6, 3)])
def test_alpha_does_not_hide_dark_16_bit_numbers(colour_type: int, num_colours: int) -> None:
    row = b"\0" + struct.pack(f">{num_colours + 1}H", *[4_095] * num_colours, 65_535) * 4
    with pytest.raises(UnsupportedImageFormat, match="12 bits or fewer in words of 16"):
        decode_image(png(4, 1, row, bit_depth=16, colour_type=colour_type))


def test_apple_s_png_is_not_called_broken() -> None:
    data = png(32, 24, ROWS)
    with pytest.raises(UnsupportedImageFormat, match="Apple"):
        decode_image(data[:8] + png_chunk(b"CgBI", bytes(4)) + data[8:])
