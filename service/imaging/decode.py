"""The decoder of files, for training, evaluation and serving alike. Pillow may use the inspected format only."""

import io
import logging
import re
import warnings
from contextlib import AbstractContextManager

import numpy as np
from PIL import AvifImagePlugin, Image, ImageFile, TiffImagePlugin, TiffTags, WebPImagePlugin

from service.errors import InvalidImage, is_out_of_memory
from service.imaging import heif
from service.imaging.colour import check_levels, flatten
from service.imaging.inspection import Inspection, check_pixels, foreign_errors_blamed, inspect
from service.imaging.jpeg import ENOUGH, MAX_JPEG_PIXELS
from service.imaging.limits import PIXEL_BYTES, ImageLimits, ResizeRule
from service.imaging.pixels import Decoded, Pixels
from service.imaging.png import check_rows, mark_transparent, without_broken_notes
from service.imaging.refusals import not_read
from service.imaging.resize import resize
from service.imaging.tiff_directory import read_page
from service.machine import can_allocate

# By name, because Pillow would load all its forty readers to find these three; the others it always loads.
_READERS = (AvifImagePlugin, TiffImagePlugin, WebPImagePlugin)

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


def decode_image(data: bytes, limits: ImageLimits = _DEFAULT_LIMITS) -> Decoded:
    """Decode a file: the image upright, on white, with the profile of its colours.

    Of animations it is the first frame, of multi-page files the first page. JPEGs with a shorter side of 1024 pixels or
    more come at a half, a quarter or an eighth of their size, still 512 or more. The same bytes give the same pixels,
    in any thread. docs/reference/images.md lists formats and refusals.

    Args:
        data: A whole file: JPEG (also MPO), PNG, WebP, GIF, BMP, TIFF, AVIF or HEIC. The content decides.
        limits: Bytes of the file and pixels of the image.

    Returns:
        The image. Its colours are not converted yet. `resize` does that, where it costs least.

    Raises:
        ImageError, OutOfMemory: As `inspect`. No bytes raise anything else.
    """
    inspection = inspect(data, limits)
    with _errors_blamed(data, inspection):
        return _decode(data, inspection)


def decode_square(
    data: bytes, rule: ResizeRule, inspected: Inspection | ImageLimits = _DEFAULT_LIMITS, *, may_crash: bool = False
) -> Pixels:
    """Decode a file, and resize it to the square that the network takes.

    Args:
        data, rule: As of `decode_image` and `resize`.
        inspected: The inspection of `data`, or limits, within which it is inspected here.
        may_crash: Whether a library may crash this process. Else HEIC is decoded in a new one.

    Returns:
        `resize(decode_image(data), rule)`, bit for bit: uint8, shape (image_size, image_size, 3), RGB, read-only.
        Errors are those of `decode_image`.
    """
    inspection = inspect(data, inspected) if isinstance(inspected, ImageLimits) else inspected
    with _errors_blamed(data, inspection):
        return resize(_decode(data, inspection, may_crash=may_crash), rule)


def _errors_blamed(data: bytes, inspection: Inspection) -> AbstractContextManager[None]:
    num_bytes = PIXEL_BYTES * inspection.num_pixels + 2 * len(data)
    return foreign_errors_blamed(inspection.format, lambda: not can_allocate(num_bytes))


def _decode(data: bytes, inspection: Inspection, *, may_crash: bool = False) -> Decoded:
    image_format = inspection.format
    _prepare_pillow(inspection.limits)
    if image_format == heif.FORMAT:
        if not may_crash:
            return _decode_apart(data, inspection)
        heif.load_heif()
    # Pillow would refuse a whole image over a broken note, and answer half of one at an early end mark.
    prepared = without_broken_notes(data) if image_format == "PNG" else data
    if inspection.jpeg:
        prepared = inspection.jpeg.without_end(data)
    with Image.open(io.BytesIO(prepared), formats=(image_format,)) as file:
        # The decoder itself halves, quarters or eighths JPEGs, each block at once; it takes the least that is no less.
        file.draft(None, (ENOUGH, ENOUGH))
        _check_size(file.width * file.height, inspection)
        if image_format == "TIFF":
            _prepare_tiff(file)
        file.load()
        if image_format == "PNG":
            check_rows(file, prepared)
        _check_loaded(file, data, image_format)
        if image_format == "PNG":
            mark_transparent(file, prepared)
        # A copy lets go of the decoder, which of WebP holds the image twice.
        image = file.copy() if image_format == "WEBP" else file
        upright = _TO_UPRIGHT.get(_orientation(file))
    del file
    profile, flat = image.info.get("icc_profile"), flatten(image)
    upright_image = flat if upright is None else flat.transpose(upright)
    return Decoded(upright_image, profile if isinstance(profile, bytes) else None)  # TIFF may hold text or numbers


def _decode_apart(data: bytes, inspection: Inspection) -> Decoded:
    num_pixels, image = heif.decode_apart(data, inspection.limits.max_image_pixels)
    _check_size(num_pixels, inspection)
    assert image is not None  # `_check_size` refuses larger ones
    return Decoded(flatten(image), image.info.get("icc_profile"))


def _check_size(num_pixels: int, inspection: Inspection) -> None:
    """Refuse an opened file that has more pixels than it announced, by which its place was chosen."""
    check_pixels(num_pixels, inspection.limits)
    if inspection.is_memory_bounded and num_pixels > inspection.num_pixels:
        raise InvalidImage(f"The {inspection.format} image is larger than its header says. Send another copy.")


def _prepare_tiff(file: ImageFile.ImageFile) -> None:
    """Keep Pillow from decoding an image once for each listing of its strips, and from reading directories.

    Else it reads the notes inside the notes while it loads, up to the whole file as Python's numbers.
    """
    places = [tile.extents for tile in file.tile if tile.extents is not None]
    num_pixels = sum((right - left) * (lower - upper) for left, upper, right, lower in places)
    if num_pixels > _MOST_PLANES * file.width * file.height:
        raise InvalidImage("The TIFF image lists its strips more than once. Send a copy saved afresh as JPEG or PNG.")
    exif = file.getexif()
    for tag in TiffTags.TAGS_V2_GROUPS:
        if tag in exif:
            del exif[tag]


def _check_loaded(file: ImageFile.ImageFile, data: bytes, image_format: str) -> None:
    """Refuse numbers of 12 bits in words of 16, and greys beyond those that Pillow holds."""
    page = read_page(data) if image_format == "TIFF" else None
    num_bits = page.unsigned_bits if page else data[24] if image_format == "PNG" else 0  # 24: where its header says it
    if num_bits == 16:
        check_levels(file, image_format)
    if page and num_bits == 32 and np.min(file.getextrema()) < 0:
        raise not_read("TIFF", "holds 32-bit numbers above 2,147,483,647")


def _orientation(image: Image.Image) -> int:
    """Return 1 to 8 as in EXIF, or in XMP where there is no EXIF. 1 means upright, or not readable.

    TIFF always gives 1. Pillow turns it while loading, and takes the note away.
    """
    if len(image.info.get("exif") or b"") > _MAX_EXIF_BYTES:  # HEIF has None
        return 1
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except Exception as error:
        if is_out_of_memory(error):
            raise
        return 1  # a note beside the image is broken, the image is not


def _prepare_pillow(limits: ImageLimits) -> None:
    """Set Pillow's globals before every image, so that no other import or setting matters.

    Pillow's own pixel guard is never lowered, since a neighbour may have a larger limit. A filter in front silences
    warnings. `warnings.catch_warnings` swaps a list that all threads share.
    """
    ImageFile.LOAD_TRUNCATED_IMAGES = False
    most_pixels = max(limits.max_image_pixels, MAX_JPEG_PIXELS)
    if (Image.MAX_IMAGE_PIXELS or 0) < most_pixels:
        Image.MAX_IMAGE_PIXELS = most_pixels
    if tuple(warnings.filters[:1]) != (_PILLOW_WARNINGS,):
        warnings.filterwarnings("ignore", module=r"PIL\.")
        logging.getLogger("PIL").setLevel(logging.CRITICAL)
