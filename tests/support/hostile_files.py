"""Small files that would cost a careless decoder seconds or gigabytes: `python -m support.hostile_files FOLDER`."""

import random
import struct
import sys
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path

from PIL import Image
from support.drawing import encode
from support.handmade import png_chunk

from service.bench.photographs import draw_flower


def hostile_files() -> dict[str, bytes]:
    """By what they are."""
    return {name: make() for name, make in _FILES.items()}


def chained_profile(num_elements: int) -> bytes:
    """An ICC profile of RGB whose transform is a chain of so many matrices, which all are one and the same."""
    matrix = b"matf" + bytes(4) + struct.pack(">HH12f", 3, 3, 1, 0, 0.0001, 0, 1, 0, 0, 0, 1, 0.0001, 0, 0)
    chain = b"mpet" + bytes(4) + struct.pack(">HHI", 3, 3, num_elements)
    chain += struct.pack(">II", 16 + 8 * num_elements, len(matrix)) * num_elements + matrix
    return profile_of({b"D2B0": chain})


def profile_of_names(num_languages: int) -> bytes:
    """An ICC profile of RGB with its name in so many languages, as it says: 12 bytes of memory each."""
    return profile_of({b"desc": b"mluc" + bytes(4) + struct.pack(">II", num_languages, 12)})


def profile_of_colours(num_steps: int, kind: bytes = b"mft2") -> bytes:
    """An ICC profile with a table of so many steps in each of five directions, as it says: 6 bytes of memory each.

    `kind` is `mft2` (lut16Type) or `mAB ` (lutAToBType).
    """
    if kind == b"mAB ":
        table = bytes((5, 3, 0, 0)) + struct.pack(">5I", 0, 0, 0, 32, 0)
        table += bytes((num_steps,)) * 5 + bytes(11) + b"\2\0\0\0"
    else:
        table = bytes((5, 3, num_steps, 0)) + struct.pack(">9i", *(65536, 0, 0, 0) * 2, 65536)
        table += struct.pack(">HH", 2, 2) + b"\0\0\xff\xff" * 5
    return profile_of({b"A2B0": kind + bytes(4) + table})


def profile_of(tags: dict[bytes, bytes], spaces: bytes = b"RGB XYZ ") -> bytes:
    """An ICC profile with these tags beside a name and a white point, or in their place.

    `spaces` are its own and the one that it leads to, four bytes each.
    """
    name = b"mluc" + bytes(4) + struct.pack(">II", 1, 12) + b"enUS" + struct.pack(">II", 2, 28) + b"\0x\0\0"
    white = b"XYZ " + bytes(4) + struct.pack(">3i", 63190, 65536, 54061)
    tags = {b"desc": name, b"wtpt": white, **tags}
    header = bytearray(128)
    header[8:24] = b"\x04\x30\0\0mntr" + spaces
    header[36:40], header[68:80] = b"acsp", white[8:]
    table, blob = struct.pack(">I", len(tags)), b""
    for kind, data in tags.items():
        table += kind + struct.pack(">II", 128 + 4 + 12 * len(tags) + len(blob), len(data))
        blob += data + bytes(-len(data) % 4)
    header[:4] = struct.pack(">I", 128 + len(table) + len(blob))
    return bytes(header) + table + blob


def webp_of_tables(side: int) -> bytes:
    """A black lossless WebP in which each 4 x 4 pixels have five Huffman tables of their own, of no use.

    Source: RFC 9649, 3.
    """
    num_blocks = ((side + 3) // 4) ** 2
    table = "1000"  # simple, of one symbol, which is 0: no pixel takes a bit
    # The map's green and red have eight bits each. The lengths of these codes, 8 and 18 ("that many zeros"), are
    # themselves written with one bit.
    literals = "0" + _bits(8, 4) + "".join(_bits(order in (1, 11), 3) for order in range(12)) + "0" + "0" * 256
    stream = _bits(0x2F, 8) + _bits(side - 1, 14) * 2 + _bits(0, 4)
    stream += "00" + "1" + _bits(0, 3)  # neither transform nor cache of colours, but a map of blocks of 4 x 4
    stream += "0" + literals + "1" + _bits(24 - 11, 7) + literals + table * 3
    stream += "".join(f"{block & 255:08b}{block >> 8 & 255:08b}" for block in range(num_blocks))
    stream += table * 5 * min(num_blocks, 1 << 16)
    stream += "0" * (-len(stream) % 16)
    data = int(stream[::-1], 2).to_bytes(len(stream) // 8, "little")
    return b"RIFF" + struct.pack("<I", len(data) + 12) + b"WEBPVP8L" + struct.pack("<I", len(data)) + data


def _bits(value: int, count: int) -> str:
    """The least first, as WebP reads them."""
    return f"{value:0{count}b}"[::-1]


def larger_inside(side: int) -> bytes:
    """An AVIF that announces 48 x 36 pixels and holds `side` x `side`."""
    data = encode(Image.new("RGB", (side, side)), "AVIF", subsampling="4:4:4", speed=10)
    size = struct.pack(">II", side, side)
    assert data.count(size) == 1
    return data.replace(size, struct.pack(">II", 48, 36))


def tiff_with_notes(num_fractions: int) -> bytes:
    """A grey TIFF of 8 x 8 pixels, 0 to 63, with EXIF of so many fractions: 8 bytes each, and 230 in Python."""
    entries = [(256, 4, 1, 8), (257, 4, 1, 8), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1), (277, 3, 1, 1)]
    begins_at = 8 + 2 + 12 * (len(entries) + 2) + 4
    entries += [(273, 4, 1, begins_at), (0x8769, 4, 1, begins_at + 64)]
    notes = struct.pack("<HHHII", 1, 0x829A, 5, num_fractions, begins_at + 64 + 18) + bytes(4)
    return tiff(entries, bytes(range(64)) + notes + b"\1" * 8 * num_fractions)


def fax(num_rows: int) -> bytes:
    """A TIFF, a pixel wide, of rows in a fax's code that mean nothing: the library complains of each on stderr."""
    rows = random.Random(1).randbytes(num_rows // 8)
    entries = [(256, 4, 1, 1), (257, 4, 1, num_rows), (258, 3, 1, 1), (259, 3, 1, 3), (262, 3, 1, 0), (277, 3, 1, 1)]
    begins_at = 8 + 2 + 12 * (len(entries) + 3) + 4
    return tiff([*entries, (273, 4, 1, begins_at), (278, 4, 1, num_rows), (279, 4, 1, len(rows))], rows)


def tiff(entries: Iterable[tuple[int, int, int, int]], tail: bytes = b"") -> bytes:
    """Little-endian; an entry is (tag, kind, count, value or offset); `tail` follows the directory."""
    packed = [struct.pack("<HHII", *entry) for entry in sorted(entries)]
    return b"II*\0" + struct.pack("<IH", 8, len(packed)) + b"".join(packed) + bytes(4) + tail


def _black_png(side: int, before: bytes = b"", bits: int = 1) -> bytes:
    depth, kind = (8, 2) if bits == 24 else (bits, 0)  # colour, or grey
    header = side.to_bytes(4, "big") * 2 + bytes((depth, kind, 0, 0, 0))
    rows = zlib.compress(bytes((1 + (side * bits + 7) // 8) * side), 9)
    head = b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header)
    return head + before + png_chunk(b"IDAT", rows) + png_chunk(b"IEND", b"")


def _png_with_profile(profile: bytes) -> bytes:
    return _black_png(16, png_chunk(b"iCCP", b"k\0\0" + zlib.compress(profile)), 24)


def _animation(image_format: str) -> bytes:
    frames = [Image.new("RGB", (64, 64), (index % 256, index // 256, 99)) for index in range(2_000)]
    return encode(frames[0], image_format, save_all=True, append_images=frames[1:])


def _jpeg_of_scans(count: int) -> bytes:
    progressive = encode(Image.effect_noise((200, 200), 60).convert("RGB"), "JPEG", progressive=True)
    last_scan = progressive[progressive.rindex(b"\xff\xda") : -2]
    return progressive[:-2] + last_scan * count + b"\xff\xd9"


_FILES: dict[str, Callable[[], bytes]] = {
    "PNG of 19,000 x 19,000": lambda: _black_png(19_000),
    "PNG of 7,000 x 7,000": lambda: _black_png(7_000),
    "PNG of 7,000 x 7,000, in colour": lambda: _black_png(7_000, bits=24),
    "PNG text of 20 MB": lambda: _black_png(16, png_chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(20_000_000)))),
    "PNG profile of 20 MB": lambda: _png_with_profile(bytes(20_000_000)),
    "PNG profile of 30,000 matrices": lambda: _png_with_profile(chained_profile(30_000)),
    "PNG profile in 40 million languages": lambda: _png_with_profile(profile_of_names(40_000_000)),
    "PNG profile of 79 million colours": lambda: _png_with_profile(profile_of_colours(38)),
    "GIF of 2,000 frames": lambda: _animation("GIF"),
    "WebP of 2,000 frames": lambda: _animation("WEBP"),
    "WebP of 320,000 Huffman tables": lambda: webp_of_tables(1_020),
    "AVIF of 6,000 x 6,000 inside": lambda: larger_inside(6_000),
    "TIFF of 4 million rows from a fax": lambda: fax(4_000_000),
    "TIFF with EXIF of 20 MB": lambda: tiff_with_notes(2_500_000),
    "JPEG of 2,000 scans": lambda: _jpeg_of_scans(2_000),
    "JPEG of 1,000 x 49,000": lambda: encode(Image.new("RGB", (1_000, 49_000), "gold"), "JPEG"),
    "JPEG cut short": lambda: draw_flower()[:-2000],
}

if __name__ == "__main__":
    for name, data in hostile_files().items():
        Path(sys.argv[1], name).write_bytes(data)
