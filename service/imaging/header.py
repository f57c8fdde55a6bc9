"""What can be told of a picture before it is decoded: how many pixels it announces, if the file is whole.

A decoder works for as long as a file tells it to. These walks touch a few bytes per block of the file. They
refuse what would keep a decoder busy out of proportion (thousands of scans, chunks, blocks or tags), and what
stops before its end.
"""

import re
import struct
import zlib
from collections.abc import Callable

from service.errors import InvalidImage, UnsupportedImageFormat

_MAX_JPEG_MARKERS = 2_000  # a photograph has about 20; 160 with ten megabytes of metadata
_MAX_JPEG_SCANS = 100  # encoders write 10 to 18; each is a pass over the whole picture
_MAX_JPEG_WORK = 1_000_000_000  # scans x pixels, beyond the scans that encoders write: about three seconds
_USUAL_JPEG_SCANS = 20
_MAX_JPEG_FILL_BYTES = 4_096  # between header segments, in all: Pillow reads them one by one, in Python
_MAX_JPEG_NOTES = 1024 * 1024  # bytes of EXIF, Photoshop data and tables, which Pillow reads in Python
_MAX_PNG_CHUNKS = 20_000  # 20 MiB in the usual chunks of 8 KiB are 2,560
_MAX_PNG_TEXTS = 4 * 1024 * 1024  # bytes
_MAX_PNG_UNPACKED = 16  # texts and profiles that Pillow unpacks, each to 1 MiB of bytes or 4 MiB of characters
_MAX_GIF_BLOCKS = 16_384  # before the first frame, each up to 255 bytes
_MAX_BMP_RLE = 256 * 1024  # bytes, and pixels: Pillow unpacks run-length BMP in Python
_MAX_TIFF_ENTRIES = 1_000
_MAX_FAX_ROWS = 65_536  # a page has 2,000; the library complains of each row that means nothing, at length
_MAX_TIFF_VALUES = 65_536  # numbers in one entry: as many strips as a picture may sensibly have

_CUT_SHORT = "The {} picture is cut short: send the whole file again."
_HOSTILE = "The {} picture holds more {} than a photograph needs: send a copy saved afresh as JPEG or PNG."

_JPEG_MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")  # neither a stuffed byte nor a restart
_JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_JPEG_SEGMENTS = (frozenset(range(0xC0, 0xF0)) | {0xFE}) - {0xC8, 0xD8, 0xD9}  # a length follows these

# 1 none, 2-4 fax, 5 LZW, 7 JPEG, 8 and 32946 deflate, 32773 PackBits. The others are rare in photographs, and
# some allocate what their data asks for.
_TIFF_COMPRESSIONS = frozenset({1, 2, 3, 4, 5, 7, 8, 32946, 32773})
_TIFF_FAX = frozenset({2, 3, 4})
_TIFF_BYTES = frozenset({1, 2, 7})  # kinds of entry that stay one string of bytes, however long
# Tags: of those below 700 only the description is a text; Pillow or its library go through the others.
_DESCRIPTION = 270
_FIRST_TEXT = 700
_TIFF_INTEGERS = {3: "H", 4: "I", 16: "Q"}  # kind: as `struct` calls it
_TIFF_WANTED = (_WIDTH, _HEIGHT, _COMPRESSION, _TILE_WIDTH, _TILE_HEIGHT) = (256, 257, 259, 322, 323)
_TIFF_LENGTHS = frozenset({279, 325})  # of its strips, of its tiles


def announced_pixels(data: bytes, image_format: str) -> int:
    """Width x height of the first frame as the header says; 0 where only the decoder can tell (AVIF).

    Raises:
        InvalidImage: the file stops before its picture does, or its structure is broken or out of proportion.
        UnsupportedImageFormat: a compression inside TIFF or BMP that is not accepted.
        struct.error, IndexError, OverflowError: it stops inside a field; `decode_image` translates.
    """
    check = _CHECKS.get(image_format)
    return check(data) if check else 0


def tells_memory(data: bytes, image_format: str) -> bool:
    """Whether what a decoder takes can be told from the pixels: not of AVIF and TIFF, nor of WebP with a lossless part.

    AVIF names one size in its container and may hold pictures of another. Lossless WebP has Huffman tables for each
    block of 4 x 4 pixels, if it likes: hundreds of bytes a pixel, from a fraction of one. A TIFF has room for a dozen
    lists, which Python goes through number by number.
    """
    return not (image_format in ("AVIF", "TIFF") or (image_format == "WEBP" and (b"VP8L" in data or b"ALPH" in data)))


def _jpeg_pixels(data: bytes) -> int:
    position, num_scans, fill_bytes, note_bytes, pixels = 2, 0, 0, 0, 0
    for _ in range(_MAX_JPEG_MARKERS):
        found = _JPEG_MARKER.search(data, position)
        if found is None:
            raise InvalidImage(_CUT_SHORT.format("JPEG"))
        start, marker = found.start(), data[found.start() + 1]
        if num_scans == 0:
            fill_bytes += start - position
            if fill_bytes > _MAX_JPEG_FILL_BYTES:
                raise InvalidImage(_HOSTILE.format("JPEG", "filling"))
        if marker == 0xD9:  # end of image
            if num_scans:
                return pixels
            raise InvalidImage(_CUT_SHORT.format("JPEG"))
        position = start + 2
        if marker not in _JPEG_SEGMENTS:
            continue
        (length,) = struct.unpack_from(">H", data, position)
        position += length
        if marker in _JPEG_FRAMES:
            height, width = struct.unpack_from(">HH", data, start + 5)
            pixels = max(pixels, width * height)
        elif marker == 0xDA:
            num_scans += 1
            is_costly = num_scans > _USUAL_JPEG_SCANS and num_scans * pixels > _MAX_JPEG_WORK
            if is_costly or num_scans > _MAX_JPEG_SCANS:
                raise InvalidImage(_HOSTILE.format("JPEG", "scans"))
        elif marker in (0xDB, 0xED) or (marker == 0xE1 and data[start + 4 : start + 8] == b"Exif"):
            note_bytes += length
            if note_bytes > _MAX_JPEG_NOTES:
                raise InvalidImage(_HOSTILE.format("JPEG", "notes"))
    raise InvalidImage(_HOSTILE.format("JPEG", "segments"))


def _png_pixels(data: bytes) -> int:
    view, position = memoryview(data), 8
    width, height = struct.unpack_from(">II", data, 16)
    left_bytes = 8 * width * height + 2 * height + 65_536  # 16 bits and alpha, a filter for each row of each pass
    text_bytes, num_unpacked = 0, 0
    for _ in range(_MAX_PNG_CHUNKS):
        if position + 8 > len(data):
            raise InvalidImage(_CUT_SHORT.format("PNG"))
        length, kind = struct.unpack_from(">I4s", data, position)
        end = position + 12 + length
        if end > len(data):
            raise InvalidImage(_CUT_SHORT.format("PNG"))
        if kind == b"IEND":
            return int(width * height)
        if kind == b"IDAT":  # Pillow verifies the checksums of the chunks before it, not of the picture itself
            (checksum,) = struct.unpack_from(">I", data, end - 4)
            if zlib.crc32(view[position + 4 : end - 4]) != checksum:
                raise InvalidImage("The PNG picture is damaged (a checksum differs): send the file again.")
            left_bytes -= length
            if left_bytes < 0:
                raise InvalidImage(_HOSTILE.format("PNG", "data"))
        elif kind in (b"tEXt", b"iTXt", b"zTXt", b"iCCP"):
            text_bytes += length
            is_plain = kind == b"tEXt" or (kind == b"iTXt" and data[data.find(b"\0", position + 8, end) + 1] == 0)
            num_unpacked += not is_plain
            if text_bytes > _MAX_PNG_TEXTS or num_unpacked > _MAX_PNG_UNPACKED:
                raise InvalidImage(_HOSTILE.format("PNG", "texts"))
        position = end
    raise InvalidImage(_HOSTILE.format("PNG", "chunks"))


def _gif_pixels(data: bytes) -> int:
    """Walks as far as the first frame's own header; what follows that frame is nobody's concern."""
    width, height, flags = struct.unpack_from("<HHB", data, 6)
    position = 13 + (3 << (flags & 7) + 1 if flags & 0x80 else 0)
    num_blocks = 0
    while data[position] == 0x21:  # an extension: two bytes, then blocks up to an empty one
        position += 2
        while size := data[position]:
            position += 1 + size
            num_blocks += 1
            if num_blocks > _MAX_GIF_BLOCKS:
                raise InvalidImage(_HOSTILE.format("GIF", "remarks"))
        position += 1
    if data[position] != 0x2C:
        raise InvalidImage("The GIF holds no picture: send another file.")
    left, top, frame_width, frame_height = struct.unpack_from("<HHHH", data, position + 1)
    return int(max(width, left + frame_width) * max(height, top + frame_height))


def _webp_pixels(data: bytes) -> int:
    """The decoder reserves the canvas when it is made, hence before it is asked for its size."""
    size = int.from_bytes(data[4:8], "little")
    if size + 8 > len(data):
        raise InvalidImage(_CUT_SHORT.format("WebP"))
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
    width, height, compression = struct.unpack_from("<Ii4xI", data, 18)
    pixels = int(width * abs(height))
    if compression in (1, 2) and max(pixels, len(data)) > _MAX_BMP_RLE:
        raise UnsupportedImageFormat(
            "The BMP picture is large and run-length compressed, which is not read here: send it as PNG."
        )
    return pixels


def _tiff_pixels(data: bytes) -> int:
    order = "<" if data[:2] == b"II" else ">"
    is_big = data[2] == 43  # BigTIFF: fields of 8 bytes
    entry = struct.Struct(order + ("HHQ8s" if is_big else "HHI4s"))
    (directory,) = struct.unpack_from(order + ("8xQ" if is_big else "4xI"), data)
    (num_entries,) = struct.unpack_from(order + ("Q" if is_big else "H"), data, directory)
    if num_entries > _MAX_TIFF_ENTRIES:
        raise InvalidImage(_HOSTILE.format("TIFF", "entries"))
    first = directory + (8 if is_big else 2)
    values: dict[int, int] = {}
    picture_bytes = 0
    for index in range(num_entries):
        tag, kind, count, field = entry.unpack_from(data, first + index * entry.size)
        is_text = kind in _TIFF_BYTES and (tag >= _FIRST_TEXT or tag == _DESCRIPTION)
        if count > _MAX_TIFF_VALUES and not is_text:
            raise InvalidImage(_HOSTILE.format("TIFF", "numbers in one entry"))
        if tag not in _TIFF_WANTED and tag not in _TIFF_LENGTHS:
            continue
        numbers = _tiff_numbers(data, order, kind, count, field)
        if not numbers or (tag in _TIFF_WANTED and len(numbers) > 1):
            raise InvalidImage("The TIFF picture is broken (its size is not a number): send another copy.")
        if tag in _TIFF_WANTED:
            values.setdefault(tag, numbers[0])
        else:
            picture_bytes = max(picture_bytes, sum(numbers))
    compression = values.get(_COMPRESSION, 1)
    if compression not in _TIFF_COMPRESSIONS:
        raise UnsupportedImageFormat(
            "The TIFF picture is compressed in a way that this server does not read: send it as JPEG or PNG."
        )
    if compression in _TIFF_FAX and values.get(_HEIGHT, 0) > _MAX_FAX_ROWS:
        raise InvalidImage(_HOSTILE.format("TIFF", "rows"))
    if compression != 1 and picture_bytes > 2 * len(data):  # of the same megabyte for each row, perhaps
        raise InvalidImage(_CUT_SHORT.format("TIFF"))
    # A tile is decoded whole, however little of it lies inside the picture.
    tile_pixels = values.get(_TILE_WIDTH, 0) * values.get(_TILE_HEIGHT, 0)
    return max(values.get(_WIDTH, 0) * values.get(_HEIGHT, 0), tile_pixels)


def _tiff_numbers(data: bytes, order: str, kind: int, count: int, field: bytes) -> tuple[int, ...]:
    """Those of an entry, which are in its own `field` if they fit there, else where that points to; none of others."""
    if kind not in _TIFF_INTEGERS:
        return ()
    layout = struct.Struct(f"{order}{count}{_TIFF_INTEGERS[kind]}")
    if layout.size <= len(field):
        return layout.unpack(field[: layout.size])
    return layout.unpack_from(data, *struct.unpack(order + ("Q" if len(field) == 8 else "I"), field))


_CHECKS: dict[str, Callable[[bytes], int]] = {
    "JPEG": _jpeg_pixels,
    "PNG": _png_pixels,
    "GIF": _gif_pixels,
    "WEBP": _webp_pixels,
    "BMP": _bmp_pixels,
    "TIFF": _tiff_pixels,
}
