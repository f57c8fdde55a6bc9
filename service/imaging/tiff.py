"""TIFF: the kinds of it that are decoded rightly, and whether a page has all of its data."""

import math
import struct

from service.errors import InvalidImage
from service.imaging.refusals import cut_short, not_read, out_of_proportion
from service.imaging.tiff_directory import LENGTHS, Tag, TiffPage, read_directory, read_page

_MAX_FAX_ROWS = 65_536  # a page has 2,000; the library complains of each row that means nothing, at length

_NONE, _JPEG, _FAX = 1, 7, frozenset({2, 3, 4})
# Beside these LZW, deflate by two names, and PackBits. The others are rare in photographs, and some allocate what
# their data asks for.
_COMPRESSIONS = frozenset({_NONE, _JPEG, 5, 8, 32946, 32773}) | _FAX
_WHITE_IS_ZERO, _GREY, _RGB, _PALETTE, _CMYK, _YCBCR, _LAB = 0, 1, 2, 3, 5, 6, 8
_UNSIGNED, _SIGNED, _FLOAT = 1, 2, 3
_ANYTHING, _ASSOCIATED, _ALPHA, _COREL = 0, 1, 2, 999  # kinds of further samples
_JPEG_COLOURS = frozenset({_GREY, _RGB, _CMYK, _YCBCR})
_COLOURS_APART = frozenset({_GREY, _RGB, _PALETTE, _CMYK})
_ALPHAS = frozenset({(_ANYTHING,), (_ASSOCIATED,), (_ALPHA,)})
_NO_MORE: frozenset[tuple[int, ...]] = frozenset({()})
_KINDS: dict[tuple[int, int, int], frozenset[tuple[int, ...]]] = {
    **{(_WHITE_IS_ZERO, bits, _UNSIGNED): _NO_MORE for bits in (1, 2, 4, 8)},
    **{(_GREY, bits, _UNSIGNED): _NO_MORE for bits in (1, 2, 4, 16, 32)},
    (_GREY, 8, _UNSIGNED): _NO_MORE | _ALPHAS,
    (_GREY, 16, _SIGNED): _NO_MORE,
    (_GREY, 32, _SIGNED): _NO_MORE,
    (_GREY, 32, _FLOAT): _NO_MORE,
    **{(_PALETTE, bits, _UNSIGNED): _NO_MORE for bits in (1, 2, 4)},
    (_PALETTE, 8, _UNSIGNED): _NO_MORE | {(_ANYTHING,), (_ALPHA,)},
    (_RGB, 8, _UNSIGNED): _NO_MORE | {
        first + more
        for first in _ALPHAS | {(_COREL,)}
        for more in ((), (_ANYTHING,), (_ANYTHING, _ANYTHING))
        if first != (_COREL,) or not more
    },
    (_RGB, 16, _UNSIGNED): _NO_MORE | _ALPHAS,
    (_CMYK, 8, _UNSIGNED): _NO_MORE | {(_ANYTHING,), (_ANYTHING, _ANYTHING)},
    (_CMYK, 16, _UNSIGNED): _NO_MORE,
    (_YCBCR, 8, _UNSIGNED): _NO_MORE,
    (_LAB, 8, _UNSIGNED): _NO_MORE,
}  # fmt: skip
"""Photometric interpretation, bits and format of a sample: which further samples there may be.

Each was compared with the image that was drawn, in both byte orders, as strips and tiles, with each compression.
"""
_COLOUR_SAMPLES = {_RGB: 3, _YCBCR: 3, _LAB: 3, _CMYK: 4}
_LEAST_FULL_LEVEL = 1 << 14  # of 16-bit numbers whose greatest is stated


def tiff_pixels(data: bytes) -> int:
    """Return the pixels of the first page.

    Raises:
        InvalidImage: The page is broken, cut short or out of proportion.
        UnsupportedImageFormat: The page is of a kind that is not decoded rightly, or only a thumbnail.
        struct.error: The file stops inside a field.
    """
    page = read_page(data)
    compression = page.one(Tag.COMPRESSION, _NONE)
    if compression not in _COMPRESSIONS:
        raise not_read("TIFF", "is compressed in a rare way")
    if compression in _FAX and page.one(Tag.HEIGHT, 0) > _MAX_FAX_ROWS:
        raise out_of_proportion("TIFF", "rows")
    image_bytes = max((sum(page.numbers[tag]) for tag in LENGTHS if tag in page.numbers), default=0)
    if compression != _NONE and image_bytes > 2 * len(data):  # of the same megabyte for each row, perhaps
        raise cut_short("TIFF")
    _check_first(data, page)
    if not _is_listed(page):
        raise not_read("TIFF", "is of a rare kind")
    _check_colours(page)
    _check_strips(data, page)
    return page.pixels


def _check_first(data: bytes, page: TiffPage) -> None:
    """Refuse a first page that is a thumbnail or a mask, as in raw files."""
    is_small = page.one(Tag.SUBFILE, 0) & 1 or page.one(Tag.OLD_SUBFILE, 1) == 2
    if is_small or page.one(Tag.SUBFILE, 0) & 4 or _has_larger_part(data, page):
        raise not_read("TIFF", "begins with a thumbnail or a mask", "Send the image itself, as JPEG or PNG")


def _has_larger_part(data: bytes, page: TiffPage) -> bool:
    for start in page.numbers.get(Tag.SUB_PAGES, ())[:16]:
        try:
            part = read_directory(data, start, is_little=page.is_little, is_big=data[2] == 43)
        except (struct.error, InvalidImage):
            continue
        if part.pixels > page.pixels:
            return True
    return False


def _is_listed(page: TiffPage) -> bool:
    """Return whether the page is of a kind that is decoded rightly."""
    photometric, compression = page.one(Tag.PHOTOMETRIC, _WHITE_IS_ZERO), page.one(Tag.COMPRESSION, _NONE)
    is_apart = page.one(Tag.PLANES, 1) == 2
    bits, formats = set(page.bits), set(page.numbers.get(Tag.FORMAT, (_UNSIGNED,)))
    extra = page.numbers.get(Tag.EXTRA, ())
    num_colours = _COLOUR_SAMPLES.get(photometric, 1)
    if is_apart and extra and not any(extra):  # Pillow passes over those at the end
        extra = ()
    elif photometric == _RGB and not extra and len(page.bits) == 4:
        extra = (_ALPHA,)
    elif len(page.bits) != num_colours + len(extra):
        return False
    if len(bits) != 1 or len(formats) != 1 or len(page.bits) < num_colours:
        return False
    (depth,), (sample_format,) = bits, formats
    return (
        extra in _KINDS.get((photometric, depth, sample_format), frozenset())
        and _is_packed_rightly(page, photometric, depth, sample_format, compression, extra)
        and (not is_apart or _is_apart_rightly(page, photometric, depth, compression, extra))
        and _is_filled_rightly(page, photometric, depth, compression, extra)
    )


def _is_apart_rightly(page: TiffPage, photometric: int, depth: int, compression: int, extra: tuple[int, ...]) -> bool:
    """Return whether samples in planes of their own go with the rest."""
    if compression == _NONE:
        is_plain = page.numbers.get(Tag.EXTRA, ()) in ((), (_ALPHA,))
        return is_plain and depth == 8 and photometric in _COLOURS_APART and (not extra or photometric == _RGB)
    return photometric != _LAB and len(extra) <= (photometric == _RGB)


def _is_packed_rightly(
    page: TiffPage, photometric: int, depth: int, sample_format: int, compression: int, extra: tuple[int, ...]
) -> bool:
    """Return whether compression, predictor and byte order go with the samples."""
    is_apart = page.one(Tag.PLANES, 1) == 2
    if compression == _JPEG:
        return depth == 8 and photometric in _JPEG_COLOURS and not extra and not is_apart
    if compression in _FAX:
        return depth == 1 and photometric in (_WHITE_IS_ZERO, _GREY)
    if photometric == _YCBCR and page.numbers.get(Tag.SUBSAMPLING) != (1, 1):
        return False
    if (depth == 32 or sample_format == _SIGNED) and not page.is_little:
        return compression == _NONE and not is_apart and (depth, sample_format) != (32, _UNSIGNED)
    predictor = page.one(Tag.PREDICTOR, 1)
    return predictor == 1 or (predictor == 2 and depth >= 8) or (predictor == 3 and sample_format == _FLOAT)


def _is_filled_rightly(page: TiffPage, photometric: int, depth: int, compression: int, extra: tuple[int, ...]) -> bool:
    """Return whether the order of bits in a byte goes with the rest."""
    if page.one(Tag.FILL_ORDER, 1) != 2 or compression in _FAX:
        return True
    is_one = photometric in (_WHITE_IS_ZERO, _GREY, _PALETTE) and depth <= 8
    if extra or not (is_one or (photometric, depth) == (_RGB, 8)) or compression == _JPEG:
        return False
    is_odd = (photometric, depth) == (_WHITE_IS_ZERO, 8) or (photometric == _PALETTE and depth < 8)
    return compression != _NONE or (page.one(Tag.PLANES, 1) == 1 and not is_odd)


def _check_colours(page: TiffPage) -> None:
    """Refuse a colour map whose numbers go to 255, and 16-bit numbers that say they go to 4,095."""
    if page.one(Tag.PHOTOMETRIC, _WHITE_IS_ZERO) == _PALETTE:
        colours = page.numbers.get(Tag.COLOURS, ())
        if len(colours) != 3 * 2 ** page.bits[0]:
            raise InvalidImage("The TIFF image has a colour map of the wrong length. Send another copy.")
        if max(colours) < 256:
            raise not_read("TIFF", "has a colour map of 0 to 255")
    if page.unsigned_bits == 16 and 0 < max(page.numbers.get(Tag.MOST_VALUE, (0,))) < _LEAST_FULL_LEVEL:
        raise not_read(
            "TIFF", "holds numbers of fewer than 16 bits in words of 16", "Scale them to 0-65,535 and send it again"
        )


def _check_strips(data: bytes, page: TiffPage) -> None:
    """Refuse a page without all of its strips or tiles, or with one that ends early.

    Pillow leaves black what has no strip. The JPEG library leaves grey what has no data.
    """
    is_tiled = Tag.TILES in page.numbers and Tag.STRIPS not in page.numbers
    places = page.numbers.get(Tag.TILES if is_tiled else Tag.STRIPS, ())
    lengths = page.numbers.get(Tag.TILE_BYTES if is_tiled else Tag.STRIP_BYTES, ())
    width, height = page.one(Tag.WIDTH, 0), page.one(Tag.HEIGHT, 0)
    across = page.one(Tag.TILE_WIDTH, 0) if is_tiled else width
    down = page.one(Tag.TILE_HEIGHT, 0) if is_tiled else min(page.one(Tag.ROWS, height), height)
    if not places or not across or not down:
        return  # the decoder refuses it
    is_apart = page.one(Tag.PLANES, 1) == 2
    num_planes = len(page.bits) if is_apart else 1
    num_blocks = math.ceil(width / across) * math.ceil(height / down)
    if len(places) < num_blocks * num_planes:
        raise cut_short("TIFF")
    compression = page.one(Tag.COMPRESSION, _NONE)
    row_bytes = (across * (page.bits[0] if is_apart else sum(page.bits)) + 7) // 8
    for number, (place, length) in enumerate(zip(places, lengths, strict=False)):
        first_row = number % num_blocks * down if not is_tiled else 0
        num_rows = down if is_tiled else max(0, min(down, height - first_row))
        is_short = place + length > len(data) or (compression == _NONE and 0 < length < row_bytes * num_rows)
        if is_short or (compression == _JPEG and not data[place : place + length].rstrip(b"\0").endswith(b"\xff\xd9")):
            raise cut_short("TIFF")
