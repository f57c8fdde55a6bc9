"""Files with too many pixels, files with too much structure, and odd files as they are met."""

import struct
import zlib
from collections.abc import Callable

import numpy as np
from PIL import Image
from support.drawing import draw_photograph, encode
from support.handmade import jpeg_segment, png, png_chunk, with_segments
from support.hostile_files import fax, tiff

PICTURE = draw_photograph(1, 1, (48, 36))
JPEG = encode(PICTURE)
GIF = encode(PICTURE, "GIF")
GIF_BLOCKS_START = 13 + 3 * 256  # behind the screen's header and its palette
EXIF = b"Exif\0\0" + b"MM\0*" + bytes(60_000)
TIFF_ENTRIES = [(256, 4, 1, 8), (257, 4, 1, 8), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1), (277, 3, 1, 1)]


def with_size_at(data: bytes, position: int, layout: str, *sides: int) -> bytes:
    return data[:position] + struct.pack(layout, *sides) + data[position + struct.calcsize(layout) :]


def black_png(side: int) -> bytes:
    """One bit per pixel: 19,000 x 19,000 of them are 44 kB."""
    return png(side, side, bytes((1 + (side + 7) // 8) * side), bit_depth=1, colour_type=0)


def wide_canvas_webp() -> bytes:
    data = encode(PICTURE.convert("RGBA"), "WEBP", exif=b"Exif\0\0MM\0*")
    assert data[12:16] == b"VP8X"
    return data[:24] + b"\xfe\x3f\0\xfe\x3f\0" + data[30:]


BOMBS: dict[str, Callable[[], bytes]] = {
    "PNG": lambda: black_png(19_000),
    "JPEG": lambda: with_size_at(JPEG, JPEG.index(b"\xff\xc0") + 5, ">HH", 65_500, 65_500),
    "GIF screen": lambda: with_size_at(GIF, 6, "<HH", 65_535, 65_535),
    "GIF frame": lambda: with_size_at(GIF, GIF.index(b",", GIF_BLOCKS_START) + 5, "<HH", 65_535, 65_535),
    "WebP canvas": wide_canvas_webp,
    "BMP": lambda: with_size_at(encode(PICTURE, "BMP"), 18, "<ii", 40_000, -40_000),
    "TIFF": lambda: tiff([(256, 4, 1, 40_000), (257, 4, 1, 40_000), *TIFF_ENTRIES[2:], (273, 4, 1, 8)]),
    "TIFF tile": lambda: tiff([*TIFF_ENTRIES, (322, 4, 1, 40_000), (323, 4, 1, 40_000), (324, 4, 1, 8)]),
}


def noise(side: int) -> Image.Image:
    """A grey square, the same each time."""
    return Image.fromarray(np.random.default_rng(1).integers(0, 256, (side, side), np.uint8))


def scans(count: int) -> bytes:
    data = encode(PICTURE, progressive=True)
    last = data.rindex(b"\xff\xda")
    return data[:-2] + data[last:-2] * (count - data.count(b"\xff\xda")) + b"\xff\xd9"


def gif_with_remarks(count: int) -> bytes:
    return GIF[:GIF_BLOCKS_START] + b"!\xfe" + b"\x01." * count + b"\0" + GIF[GIF_BLOCKS_START:]


def png_with(chunks: bytes) -> bytes:
    return png(2, 2, b"\0" + bytes(6) + b"\0" + bytes(6), before=chunks)


def large_progressive(num_scans: int) -> bytes:
    """36 million pixels announced and none there: counted before anybody would miss them."""
    data = scans(num_scans)
    return with_size_at(data, data.index(b"\xff\xc2") + 5, ">HH", 6_000, 6_000)


HOSTILE: dict[str, tuple[str, Callable[[], bytes]]] = {
    "2,000 scans": ("scans", lambda: scans(2_000)),
    "30 scans of many pixels": ("scans", lambda: large_progressive(30)),
    "3,000 comments": ("segments", lambda: with_segments(JPEG, jpeg_segment(0xFE, b"") * 3_000)),
    "fill bytes": ("filling", lambda: with_segments(JPEG, b"\xff" * 5_000)),
    "a reserved segment": ("filling", lambda: with_segments(JPEG, jpeg_segment(0xF0, bytes(5_000)))),
    "giant EXIF": ("notes", lambda: with_segments(JPEG, jpeg_segment(0xE1, EXIF) * 20)),
    "giant Photoshop data": ("notes", lambda: with_segments(JPEG, jpeg_segment(0xED, bytes(60_000)) * 20)),
    "many tables": ("notes", lambda: with_segments(JPEG, jpeg_segment(0xDB, bytes(65 * 900)) * 20)),
    "30,000 chunks": ("chunks", lambda: png_with(png_chunk(b"abCd", b"") * 30_000)),
    "20,000 remarks": ("remarks", lambda: gif_with_remarks(20_000)),
    "2,000 entries": ("entries", lambda: tiff([*TIFF_ENTRIES, *((40_000 + i, 7, 9, 8) for i in range(2_000))])),
    "100 packed texts": ("texts", lambda: png_with(png_chunk(b"zTXt", b"k\0\0" + zlib.compress(b"x")) * 100)),
    "100 packed profiles": ("texts", lambda: png_with(png_chunk(b"iCCP", b"k\0\0" + zlib.compress(b"x")) * 100)),
    "texts of 5 MB": ("texts", lambda: png_with(png_chunk(b"tEXt", b"k\0" + bytes(50_000)) * 100)),
    "more data than pixels": ("data", lambda: png(2, 2, bytes(14), deflated=b"\0\0\0\xff\xff" * 20_000)),
    "strips of bytes": ("numbers", lambda: tiff([*TIFF_ENTRIES, (273, 1, 100_000, 8)], tail=bytes(100_000))),
    "signed bytes": ("numbers", lambda: tiff([*TIFF_ENTRIES, (700, 6, 100_000, 8)], tail=bytes(100_000))),
    "a fax of 100,000 rows": ("rows", lambda: fax(100_000)),
    "100,000 strips": ("numbers", lambda: tiff([*TIFF_ENTRIES, (273, 4, 100_000, 8)], tail=bytes(400_000))),
}


REAL: dict[str, Callable[[], bytes]] = {
    "60 scans": lambda: scans(60),
    "fill bytes": lambda: with_segments(JPEG, b"\xff" * 50),
    "EXIF": lambda: with_segments(JPEG, jpeg_segment(0xE1, EXIF)),
    "extended XMP": lambda: with_segments(JPEG, jpeg_segment(0xE1, b"http://ns.adobe.com" + bytes(60_000)) * 100),
    "texts": lambda: png_with(png_chunk(b"tEXt", b"Comment\0" + b"x" * 100) * 1_000),
    "remarks": lambda: gif_with_remarks(2_000),
    "packed texts": lambda: png_with(png_chunk(b"iTXt", b"k\0\1\0\0\0" + zlib.compress(b"x" * 1_000_000)) * 16),
    "stored data": lambda: encode(noise(99), "PNG", compress_level=0),
    "plain texts in many languages": lambda: png_with(png_chunk(b"iTXt", b"Title\0\0\0de\0\0Tulpe") * 100),
    "strips": lambda: encode(PICTURE, "TIFF", compression="tiff_lzw", strip_size=300),
    "a long description": lambda: encode(PICTURE, "TIFF", tiffinfo={270: "x" * 100_000}),
}
