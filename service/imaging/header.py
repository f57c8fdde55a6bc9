"""Pixels that an image announces, told before it is decoded.

The walks touch a few bytes of each block. They refuse files that would keep a decoder busy out of proportion, and files
that stop before their end.
"""

import struct
from collections.abc import Callable

from service.errors import InvalidImage
from service.imaging.png import png_pixels
from service.imaging.refusals import cut_short, not_read, out_of_proportion
from service.imaging.tiff import tiff_pixels

_MAX_GIF_BLOCKS = 16_384  # before the first frame, each up to 255 bytes
_MAX_BMP_RLE = 256 * 1024  # bytes, and pixels: Pillow unpacks run-length BMP in Python
_BMP_COMPRESSIONS = frozenset({0, 1, 2, 3, 6})  # 6: masks with one for alpha
_BMP_BITS = frozenset({1, 4, 8, 16, 24, 32})


def announced_pixels(data: bytes, image_format: str) -> int:
    """Return width x height of the first frame of any format but JPEG.

    0 means that only the decoder can tell (AVIF, HEIF).

    Raises:
        InvalidImage: The file stops before its image does, or its structure is broken or out of proportion.
        UnsupportedImageFormat: It is a kind of PNG, TIFF or BMP that is not decoded rightly.
        struct.error, IndexError, OverflowError: The file stops inside a field.
    """
    return _CHECKS[image_format](data) if image_format in _CHECKS else 0


def _gif_pixels(data: bytes) -> int:
    """Walk as far as the first frame's own header. Later frames are not looked at."""
    width, height, flags = struct.unpack_from("<HHB", data, 6)
    position = 13 + (3 << (flags & 7) + 1 if flags & 0x80 else 0)
    num_blocks = 0
    while data[position] == 0x21:  # an extension: two bytes, then blocks up to an empty one
        position += 2
        while size := data[position]:
            position += 1 + size
            num_blocks += 1
            if num_blocks > _MAX_GIF_BLOCKS:
                raise out_of_proportion("GIF", "remarks")
        position += 1
    if data[position] != 0x2C:
        raise InvalidImage("The GIF holds no image. Send another file.")
    left, top, frame_width, frame_height = struct.unpack_from("<HHHH", data, position + 1)
    return int(max(width, left + frame_width) * max(height, top + frame_height))


def _webp_pixels(data: bytes) -> int:
    """Read the size of the canvas, which the decoder reserves when it is made."""
    size = int.from_bytes(data[4:8], "little")
    if size + 8 > len(data):
        raise cut_short("WebP")
    kind = data[12:16]
    if kind == b"VP8X":
        return (int.from_bytes(data[24:27], "little") + 1) * (int.from_bytes(data[27:30], "little") + 1)
    if kind == b"VP8L":
        bits = int.from_bytes(data[21:25], "little")
        return ((bits & 0x3FFF) + 1) * ((bits >> 14 & 0x3FFF) + 1)
    width, height = struct.unpack_from("<HH", data, 26)
    return int((width & 0x3FFF) * (height & 0x3FFF))


def _bmp_pixels(data: bytes) -> int:
    (header_size,) = struct.unpack_from("<I", data, 14)
    if header_size == 12:
        width, height = struct.unpack_from("<HH", data, 18)
        return int(width * height)
    width, height, num_bits, compression = struct.unpack_from("<Ii2xHI", data, 18)
    pixels = int(width * abs(height))
    if compression in (1, 2) and max(pixels, len(data)) > _MAX_BMP_RLE:
        raise not_read("BMP", "is large and run-length compressed", "Send it as PNG")
    if compression not in _BMP_COMPRESSIONS or num_bits not in _BMP_BITS:
        raise not_read("BMP", "is packed in a rare way", "Send it as PNG")
    return pixels


_CHECKS: dict[str, Callable[[bytes], int]] = {
    "PNG": png_pixels,
    "GIF": _gif_pixels,
    "WEBP": _webp_pixels,
    "BMP": _bmp_pixels,
    "TIFF": tiff_pixels,
}
