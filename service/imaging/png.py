"""A walk over the chunks of a PNG, its notes that are passed over, and its transparent colour."""

import io
import struct
import zlib

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops, ImageFile

from service.errors import InvalidImage
from service.imaging.refusals import cut_short, not_read, out_of_proportion

_MAX_CHUNKS = 20_000  # 20 MiB in the usual chunks of 8 KiB are 2,560
_MAX_TEXTS = 4 * 1024 * 1024  # bytes
_MAX_UNPACKED = 16  # texts and profiles that Pillow unpacks, each to 1 MiB of bytes or 4 MiB of characters
_IS_NOTE = 0x20  # this bit of a chunk's first letter: decoders may do without it
_IDAT = b"IDAT"
_GREY, _RGB = 0, 2  # colour types that a transparent colour is part of
_TRANSPARENT_BYTES = {_GREY: 2, _RGB: 6}
_SHORTEST_NOTES = {b"pHYs": 9, b"gAMA": 4, b"cHRM": 32, b"sRGB": 1}  # bytes without which Pillow gives up
_ANIMATION = frozenset({b"acTL", b"fcTL", b"fdAT"})  # the first frame is in the ordinary place
# Names of texts that Pillow would mistake for its own notes.
_TAKEN_NAMES = frozenset({b"transparency", b"interlace", b"bbox", b"default_image"})


def png_pixels(data: bytes) -> int:
    """Return width x height of a whole PNG.

    Raises:
        InvalidImage: The file is cut short, damaged or out of proportion.
        UnsupportedImageFormat: The file is Apple's variant for its telephones.
    """
    width, height = struct.unpack_from(">II", data, 16)
    left_bytes = 8 * width * height + 2 * height + 65_536  # 16 bits and alpha, a filter for each row of each pass
    text_bytes, num_unpacked = 0, 0
    for kind, position, end in _chunks(data):
        length = end - position - 12
        if kind == b"CgBI":
            raise not_read("PNG", "is packed for Apple's telephones", "Send it as JPEG, or as an ordinary PNG")
        if kind == _IDAT:  # Pillow verifies the checksums of the chunks before it, not of the image itself
            if not _is_sound(data, position, end):
                raise InvalidImage("The PNG image is damaged, as a checksum differs. Send the file again.")
            left_bytes -= length
            if left_bytes < 0:
                raise out_of_proportion("PNG", "data")
        elif kind in (b"tEXt", b"iTXt", b"zTXt", b"iCCP"):
            text_bytes += length
            is_plain = kind == b"tEXt" or (kind == b"iTXt" and data[data.find(b"\0", position + 8, end) + 1] == 0)
            num_unpacked += not is_plain
            if text_bytes > _MAX_TEXTS or num_unpacked > _MAX_UNPACKED:
                raise out_of_proportion("PNG", "texts")
    return int(width * height)


def without_broken_notes(data: bytes) -> bytes:
    """Return a PNG without its broken notes and its later frames.

    Pillow refuses the whole image over one of them. A PNG without any is returned itself.
    """
    kept, kept_from = [], 0
    for kind, position, end in _chunks(data):
        if kind[0] & _IS_NOTE and not _is_readable(data, kind, position, end):
            kept.append(data[kept_from:position])
            kept_from = end
    return data if not kept else b"".join((*kept, data[kept_from:]))


def check_rows(file: Image.Image, data: bytes) -> None:
    """Refuse a loaded PNG whose packed data end in good order before its image does. Raises `InvalidImage`.

    Rows that were never written are zero, as the decoder found them. Where one of the last rows is, the image is
    decoded once more, over ones. Interlaced images end with their odd rows, so that two rows tell.
    """
    rows = _last_rows(file)
    if all(row.any() for row in rows):
        return
    with Image.open(io.BytesIO(data), formats=("PNG",)) as again:
        num_bands = len(again.getbands())
        again.im = Image.new(again.mode, again.size, 1 if num_bands == 1 else (1,) * num_bands).im
        again.load()
        if any(not row.any() and (marked == 1).all() for row, marked in zip(rows, _last_rows(again), strict=True)):
            raise cut_short("PNG")


def mark_transparent(file: ImageFile.ImageFile, data: bytes) -> None:
    """Scale the transparent colour of an opened PNG like its pixels, which Pillow makes 8 bits.

    Of 16-bit colour the image must be loaded already. The colour becomes white there and then, as it is told from its
    neighbours by the low bytes only.
    """
    transparent = file.info.get("transparency")
    depth, colour_type = data[24], data[25]
    most = 2**depth - 1
    if colour_type == _GREY and isinstance(transparent, int) and 1 < depth <= 8:
        file.info["transparency"] = (transparent & most) * 255 // most
    elif colour_type == _RGB and depth == 8 and isinstance(transparent, tuple):
        file.info["transparency"] = tuple(number & most for number in transparent)
    elif colour_type == _RGB and depth == 16 and isinstance(transparent, tuple):
        del file.info["transparency"]
        with Image.open(io.BytesIO(data), formats=("PNG",)) as other:
            (tile,) = other.tile
            other.tile = [tile._replace(args="RGB;16L")]  # as if the other byte came first: the low ones
            other.load()
            mask = Image.new("L", file.size, 255)
            for image, shift in ((file, 8), (other, 0)):
                for band, number in enumerate(transparent):
                    is_it = [255 * (value == number >> shift & 255) for value in range(256)]
                    mask = ImageChops.darker(mask, image.getchannel(band).point(is_it))
        file.paste((255, 255, 255), mask=mask)


def _chunks(data: bytes) -> list[tuple[bytes, int, int]]:
    """List kind, start and end of each chunk before the end mark."""
    found: list[tuple[bytes, int, int]] = []
    position = 8
    while len(found) < _MAX_CHUNKS:
        if position + 8 > len(data):
            raise cut_short("PNG")
        length, kind = struct.unpack_from(">I4s", data, position)
        end = position + 12 + length
        if end > len(data):
            raise cut_short("PNG")
        if kind == b"IEND":
            return found
        found.append((kind, position, end))
        position = end
    raise out_of_proportion("PNG", "chunks")


def _last_rows(image: Image.Image) -> list[NDArray[np.uint8]]:
    """Return the last two rows as they are stored."""
    tops = range(max(0, image.height - 2), image.height)
    return [np.asarray(image.crop((0, top, image.width, top + 1))) for top in tops]


def _is_sound(data: bytes, position: int, end: int) -> bool:
    (checksum,) = struct.unpack_from(">I", data, end - 4)
    return bool(zlib.crc32(memoryview(data)[position + 4 : end - 4]) == checksum)


def _is_readable(data: bytes, kind: bytes, position: int, end: int) -> bool:
    """Return whether Pillow can read a note. Its checksum is right, and it has the form that Pillow insists on."""
    if kind in _ANIMATION or not _is_sound(data, position, end):
        return False
    body = data[position + 8 : end - 4]
    if kind == b"tRNS":
        needed = _TRANSPARENT_BYTES.get(data[25], 0)
        return len(body) == needed or (needed == 0 and 0 < len(body) <= 256)
    name, separator, rest = body.partition(b"\0")
    if kind in (b"iCCP", b"zTXt"):
        return bool(separator) and rest[:1] == b"\0" and name not in _TAKEN_NAMES
    if kind in (b"tEXt", b"iTXt"):
        return name not in _TAKEN_NAMES
    return len(body) >= _SHORTEST_NOTES.get(kind, 0)
