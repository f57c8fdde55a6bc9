"""Image files that Pillow does not write: chosen PNG chunks, JPEG segments, run-length BMP."""

import struct
import zlib


def png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(
    width: int,
    height: int,
    rows: bytes,
    *,
    bit_depth: int = 8,
    colour_type: int = 2,
    interlaced: bool = False,
    before: bytes = b"",
    deflated: bytes = b"",
) -> bytes:
    """`rows`: each with its filter byte in front, uncompressed; `before`, `deflated`: chunks, blocks ahead of them."""
    header = struct.pack(">IIBBBBB", width, height, bit_depth, colour_type, 0, 0, interlaced)
    chunks = (
        png_chunk(b"IHDR", header)
        + before
        + png_chunk(b"IDAT", b"\x78\1" + deflated + zlib.compress(rows)[2:])
        + png_chunk(b"IEND", b"")
    )
    return b"\x89PNG\r\n\x1a\n" + chunks


def jpeg_segment(marker: int, data: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(data) + 2) + data


def with_segments(jpeg: bytes, segments: bytes) -> bytes:
    """The JPEG with `segments` in front of all others."""
    return jpeg[:2] + segments + jpeg[2:]


def run_length_bmp(side: int, grey: int) -> bytes:
    """A square of one grey, 8 bits with a palette of greys, in runs of 255 pixels at most."""
    row = b"".join(bytes((min(255, side - start), grey)) for start in range(0, side, 255)) + b"\0\0"
    palette = b"".join(bytes((value, value, value, 0)) for value in range(256))
    header = struct.pack("<IiiHHIIiiII", 40, side, side, 1, 8, 1, 0, 0, 0, 256, 0)
    return b"BM" + struct.pack("<IHHI", 0, 0, 0, 14 + 40 + 1024) + header + palette + row * side + b"\0\1"
