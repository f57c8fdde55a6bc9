"""The directory of a TIFF page, whose numbers say how its image is stored."""

import struct
from dataclasses import dataclass
from enum import IntEnum

from service.errors import InvalidImage
from service.imaging.refusals import out_of_proportion

_MAX_ENTRIES = 1_000
_MAX_VALUES = 65_536  # numbers in one entry: as many strips as an image may sensibly have

_BYTES = frozenset({1, 2, 7})  # kinds of entry that stay one string of bytes, however long
_INTEGERS = {1: "B", 3: "H", 4: "I", 13: "I", 16: "Q"}  # kind: as `struct` calls it
_LONG_INTEGERS = frozenset({3, 4, 16})  # those that the size and the places of a page may have
# Tags: of those below 700 only the description is a text; Pillow or its library go through the others.
_DESCRIPTION = 270
_FIRST_TEXT = 700
_UNSIGNED = 1  # a format of samples


class Tag(IntEnum):
    """Entries that say how an image is stored, by their names in TIFF 6.0."""

    SUBFILE = 254
    OLD_SUBFILE = 255
    WIDTH = 256
    HEIGHT = 257
    BITS = 258
    COMPRESSION = 259
    PHOTOMETRIC = 262
    FILL_ORDER = 266
    STRIPS = 273
    SAMPLES = 277
    ROWS = 278
    STRIP_BYTES = 279
    MOST_VALUE = 281
    PLANES = 284
    PREDICTOR = 317
    COLOURS = 320
    TILE_WIDTH = 322
    TILE_HEIGHT = 323
    TILES = 324
    TILE_BYTES = 325
    SUB_PAGES = 330
    EXTRA = 338
    FORMAT = 339
    SUBSAMPLING = 530


LENGTHS = frozenset({Tag.STRIP_BYTES, Tag.TILE_BYTES})
_SIZES = frozenset({Tag.WIDTH, Tag.HEIGHT, Tag.COMPRESSION, Tag.TILE_WIDTH, Tag.TILE_HEIGHT})
_WANTED = frozenset(Tag)


@dataclass(frozen=True)
class TiffPage:
    """Numbers of a directory by tag. Tags that hold no whole numbers are left out.

    `is_little` tells that bytes come in little-endian order.
    """

    numbers: dict[int, tuple[int, ...]]
    is_little: bool

    def one(self, tag: int, default: int) -> int:
        """Return the first number of an entry."""
        return self.numbers.get(tag, (default,))[0]

    @property
    def pixels(self) -> int:
        """Width x height, or those of a tile if it is larger. A tile is decoded whole."""
        sides = (Tag.WIDTH, Tag.HEIGHT), (Tag.TILE_WIDTH, Tag.TILE_HEIGHT)
        return max(self.one(width, 0) * self.one(height, 0) for width, height in sides)

    @property
    def bits(self) -> tuple[int, ...]:
        """Bits of each sample of a pixel."""
        bits, num_samples = self.numbers.get(Tag.BITS, (1,)), self.one(Tag.SAMPLES, 1)
        return bits * num_samples if len(bits) == 1 and num_samples <= 6 else bits[:num_samples]

    @property
    def unsigned_bits(self) -> int:
        """Bits of its first sample, if that is an unsigned number. Else 0."""
        return self.bits[0] if self.bits and self.one(Tag.FORMAT, _UNSIGNED) == _UNSIGNED else 0


def read_page(data: bytes) -> TiffPage:
    """Return the first page's numbers.

    Raises:
        InvalidImage: The directory is broken or out of proportion.
        struct.error: The file stops inside a field.
    """
    is_little, is_big = data[:2] == b"II", data[2] == 43  # BigTIFF: fields of 8 bytes
    (start,) = struct.unpack_from(("<" if is_little else ">") + ("8xQ" if is_big else "4xI"), data)
    return read_directory(data, start, is_little=is_little, is_big=is_big)


def read_directory(data: bytes, start: int, *, is_little: bool, is_big: bool) -> TiffPage:
    """Return the numbers of the directory at `start`. The errors are those of `read_page`."""
    order = "<" if is_little else ">"
    entry = struct.Struct(order + ("HHQ8s" if is_big else "HHI4s"))
    (num_entries,) = struct.unpack_from(order + ("Q" if is_big else "H"), data, start)
    if num_entries > _MAX_ENTRIES:
        raise out_of_proportion("TIFF", "entries")
    first = start + (8 if is_big else 2)
    numbers: dict[int, tuple[int, ...]] = {}
    for index in range(num_entries):
        tag, kind, count, field = entry.unpack_from(data, first + index * entry.size)
        is_text = kind in _BYTES and (tag >= _FIRST_TEXT or tag == _DESCRIPTION)
        if count > _MAX_VALUES and not is_text and tag != Tag.COLOURS:
            raise out_of_proportion("TIFF", "numbers in one entry")
        if tag not in _WANTED:
            continue
        found = _numbers(data, order, kind, count, field)
        is_size = tag in _SIZES or tag in LENGTHS
        if is_size and (not found or kind not in _LONG_INTEGERS or (tag in _SIZES and len(found) > 1)):
            raise InvalidImage("The size of the TIFF image is not a number. Send another copy.")
        if found:
            numbers.setdefault(tag, found)
    return TiffPage(numbers, is_little)


def _numbers(data: bytes, order: str, kind: int, count: int, field: bytes) -> tuple[int, ...]:
    """Read the numbers of an entry, in its own `field` or where that points to. Other kinds of entry have none."""
    if kind not in _INTEGERS or count > 4 * _MAX_VALUES:
        return ()
    layout = struct.Struct(f"{order}{count}{_INTEGERS[kind]}")
    if layout.size <= len(field):
        return layout.unpack(field[: layout.size])
    return layout.unpack_from(data, *struct.unpack(order + ("Q" if len(field) == 8 else "I"), field))
