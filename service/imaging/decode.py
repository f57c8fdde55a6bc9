"""Bytes -> pixels: the only place where a file is decoded, for training, evaluation and serving alike.

In order: bytes counted, format told from the content (`formats.py`), size and structure judged unopened
(`header.py`), decoded by Pillow with that one format allowed, made 8 bits on white (`colour.py`), turned upright.
Then `resize.py` makes the square, and converts its colours to sRGB (`profiles.py`).
"""

import io
import logging
import re
import warnings
from collections.abc import Callable
from typing import TypeVar

import numpy as np
from PIL import AvifImagePlugin, Image, ImageFile, TiffImagePlugin, TiffTags, WebPImagePlugin

from service.errors import (
    ImageBytesTooLarge,
    ImageError,
    ImageTooLarge,
    InvalidImage,
    MissingImage,
    OutOfMemory,
    is_out_of_memory,
)
from service.imaging.colour import check_levels, flatten
from service.imaging.formats import detect_format
from service.imaging.header import announced_pixels, tells_memory
from service.imaging.jpeg import ENOUGH, MAX_JPEG_PIXELS, Jpeg, read_jpeg
from service.imaging.pixels import PIXEL_BYTES, Decoded, ImageLimits, Pixels, ResizeRule
from service.imaging.png import check_rows, has_16_bits, mark_transparent, without_broken_notes
from service.imaging.refusals import in_words, not_read
from service.imaging.resize import resize
from service.imaging.tiff_directory import read_page
from service.machine import can_allocate

# By name, because Pillow would load all its forty readers to find these three; the others it always loads.
_READERS = (AvifImagePlugin, TiffImagePlugin, WebPImagePlugin)

_Finished = TypeVar("_Finished")

_DEFAULT_LIMITS = ImageLimits()
_MOST_PLANES = 4  # colours and alpha, each of which may have strips of its own
_MAX_EXIF_BYTES = 1024 * 1024  # cameras write up to 64 KiB
_ORIENTATION = 0x0112
_TO_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_PILLOW_WARNINGS = ("ignore", None, Warning, re.compile(r"PIL\."), 0)  # as `warnings` keeps a filter

BeforeDecoding = Callable[[int, int | None], None]
"""Told the pixels (width x height) that a picture is decoded to, twice. A large JPEG is decoded to fewer than it has.

The second is None if they do not bound what the decoder takes. Then the first may be the most that a picture may have.
"""


class Undecoded(Exception):
    """For `before_decoding` to raise: the picture is left as it is."""


def decode_image(
    data: bytes, limits: ImageLimits = _DEFAULT_LIMITS, before_decoding: BeforeDecoding = lambda *_: None
) -> Decoded:
    """The picture in a file, upright, on white paper, with the profile of its colours.

    Of animations the first frame, of multi-page files the first page. JPEGs whose shorter side is 1024 pixels or more
    come at a half, a quarter or an eighth of their size, still 512 or more. What each format and mode becomes, and
    which files are refused, is in docs/reference/images.md. The same bytes give the same pixels, in any thread.

    Args:
        data: a whole file: JPEG (also MPO), PNG, WebP, GIF, BMP, TIFF or AVIF; the content decides.
        limits: how many bytes the file and how many pixels the picture may have.
        before_decoding: called when only decoding is left to do; it may wait, or raise `Undecoded`, which is passed on.

    Returns:
        The image, whose colours are not converted yet: `resize` does that, where it costs least.

    Raises:
        MissingImage: `data` is empty.
        ImageBytesTooLarge: longer than `limits.max_image_bytes`.
        ImageTooLarge: the header announces more than `limits.max_image_pixels`; nothing was decoded.
        UnsupportedImageFormat: not one of the formats.
        InvalidImage: broken, truncated or hostile. No bytes raise anything but these five.
        OutOfMemory: there is not enough memory. The image may be sound.
    """
    return _guarded(data, limits, before_decoding, lambda decoded: decoded)


def decode_square(
    data: bytes,
    rule: ResizeRule,
    limits: ImageLimits = _DEFAULT_LIMITS,
    before_decoding: BeforeDecoding = lambda *_: None,
) -> Pixels:
    """Decode an image, and resize it to the square that the network takes.

    Args:
        data: as of `decode_image`.
        rule: of the square.
        limits: as of `decode_image`.
        before_decoding: as of `decode_image`.

    Returns:
        `resize(decode_image(data), rule)`, bit for bit: uint8, shape (image_size, image_size, 3), RGB, read-only.

    Raises:
        ImageError, OutOfMemory: as `decode_image`.
    """
    return _guarded(data, limits, before_decoding, lambda decoded: resize(decoded, rule))


def _guarded(
    data: bytes,
    limits: ImageLimits,
    before_decoding: BeforeDecoding,
    finish: Callable[[Decoded], _Finished],
) -> _Finished:
    if not data:
        raise MissingImage("There is no image: it has no bytes; send the bytes of a photograph.")
    if len(data) > limits.max_image_bytes:
        raise ImageBytesTooLarge(
            f"The image file has {len(data):,} bytes; up to {limits.max_image_bytes:,} are taken: send a smaller copy."
        )
    image_format = detect_format(data)
    try:
        return finish(_decode(data, image_format, limits, before_decoding))
    except (ImageError, OutOfMemory, Undecoded):
        raise
    except Exception as error:  # over broken bytes Pillow raises nearly anything: KeyError, zlib.error, ...
        if is_out_of_memory(error) or not _has_memory(data, image_format):
            raise OutOfMemory(
                "There is not enough memory to decode the image. The image is not at fault. Send it again later, or "
                "a smaller copy."
            ) from error
        raise InvalidImage(
            f"The {image_format} picture cannot be read: it is broken, cut short or of a rare kind; "
            "send the whole file again, or a copy saved as JPEG or PNG."
        ) from error


def _has_memory(data: bytes, image_format: str) -> bool:
    """Whether the decoder could have what it may need. Decoders do not always say that they found no memory."""
    try:
        num_pixels = announced_pixels(data, image_format)
    except Exception:  # the image is broken, which is the answer
        return True
    return can_allocate(PIXEL_BYTES * num_pixels + 2 * len(data))


def _decode(data: bytes, image_format: str, limits: ImageLimits, before_decoding: BeforeDecoding) -> Decoded:
    jpeg = read_jpeg(data) if image_format == "JPEG" else None
    announced = jpeg.num_pixels if jpeg else announced_pixels(data, image_format)
    _check_pixels(announced, limits)
    is_told = tells_memory(data, image_format)
    if not is_told:
        before_decoding(announced or limits.max_image_pixels, None)  # of AVIF, even to open it may take long
    _prepare_pillow(limits)
    prepared = _prepare_bytes(data, image_format, jpeg)
    with Image.open(io.BytesIO(prepared), formats=(image_format,)) as file:
        # The decoder itself halves, quarters or eighths JPEGs, each block at once; it takes the least that is no less.
        file.draft(None, (ENOUGH, ENOUGH))
        num_pixels = max(announced, file.width * file.height)
        _check_pixels(num_pixels, limits)
        if is_told:
            before_decoding(num_pixels, num_pixels)
        if image_format == "TIFF":
            _prepare_tiff(file)
        file.load()
        if image_format == "PNG":
            check_rows(file, prepared)
        _check_loaded(file, data, image_format)
        if image_format == "PNG":
            mark_transparent(file, prepared)
        # A copy lets go of the decoder, which of WebP holds the picture twice.
        image = file.copy() if image_format == "WEBP" else file
        upright = _TO_UPRIGHT.get(_orientation(file))
    del file
    profile, flat = image.info.get("icc_profile"), flatten(image)
    upright_image = flat if upright is None else flat.transpose(upright)
    return Decoded(upright_image, profile if isinstance(profile, bytes) else None)  # TIFF may hold text or numbers


def _prepare_bytes(data: bytes, image_format: str, jpeg: Jpeg | None) -> bytes:
    """Take from a file what would make Pillow refuse a whole image, or answer half of one."""
    if image_format == "PNG":
        return without_broken_notes(data)
    return jpeg.without_end(data) if jpeg else data


def _prepare_tiff(file: ImageFile.ImageFile) -> None:
    """Keep Pillow from decoding a picture again for each time that its strips are listed, and from reading directories.

    While it loads, it would read the notes inside the notes, up to the whole file as Python's numbers.
    """
    places = [tile.extents for tile in file.tile if tile.extents is not None]
    num_pixels = sum((right - left) * (lower - upper) for left, upper, right, lower in places)
    if num_pixels > _MOST_PLANES * file.width * file.height:
        raise InvalidImage("The TIFF picture lists its strips more than once: send a copy saved afresh as JPEG or PNG.")
    exif = file.getexif()
    for tag in TiffTags.TAGS_V2_GROUPS:
        if tag in exif:
            del exif[tag]


def _check_loaded(file: ImageFile.ImageFile, data: bytes, image_format: str) -> None:
    """Refuse what only its numbers show: 12 bits in words of 16, and greys beyond those that Pillow holds."""
    page = read_page(data) if image_format == "TIFF" else None
    if has_16_bits(data) if image_format == "PNG" else page is not None and page.has_16_bits:
        check_levels(file, image_format)
    if page is not None and page.has_unsigned_32_bits and np.min(file.getextrema()) < 0:
        raise not_read("TIFF", "holds 32-bit numbers above 2,147,483,647")


def _check_pixels(pixels: int, limits: ImageLimits) -> None:
    if pixels > limits.max_image_pixels:
        raise ImageTooLarge(
            f"The picture has {in_words(pixels)} pixels to decode; up to {in_words(limits.max_image_pixels)} are "
            "taken: send a smaller copy."
        )


def _orientation(image: Image.Image) -> int:
    """1 to 8 as in EXIF (or XMP, where there is no EXIF); 1, upright, also if that cannot be read.

    Of TIFF always 1: Pillow turns it while loading, and takes the note away.
    """
    if len(image.info.get("exif", b"")) > _MAX_EXIF_BYTES:
        return 1
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except Exception as error:
        if is_out_of_memory(error):
            raise
        return 1  # a note beside the picture is broken, the picture is not


def _prepare_pillow(limits: ImageLimits) -> None:
    """Set what Pillow keeps in globals, before every picture, so that no other import or setting matters.

    Pillow's own pixel guard (it acts at twice its number) is raised at need, never lowered: it is the second
    line behind ours, and a neighbour with a larger limit must not fall over it. Warnings are silenced by a
    filter in front rather than by `warnings.catch_warnings`, which swaps a list that all threads share.
    """
    ImageFile.LOAD_TRUNCATED_IMAGES = False
    most_pixels = max(limits.max_image_pixels, MAX_JPEG_PIXELS)
    if (Image.MAX_IMAGE_PIXELS or 0) < most_pixels:
        Image.MAX_IMAGE_PIXELS = most_pixels
    if tuple(warnings.filters[:1]) != (_PILLOW_WARNINGS,):
        warnings.filterwarnings("ignore", module=r"PIL\.")
        logging.getLogger("PIL").setLevel(logging.CRITICAL)
