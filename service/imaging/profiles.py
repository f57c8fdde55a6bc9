"""Colour profiles (ICC) that are applied, and their conversions to sRGB, which are kept."""

import hashlib
import io
import math
import struct
import threading
from collections import OrderedDict
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageCms

from service.errors import OutOfMemory, is_out_of_memory
from service.imaging.colour import as_rgb
from service.imaging.pixels import Decoded, Pixels
from service.machine import can_allocate

_MAX_PROFILE_BYTES = 4 * 1024 * 1024  # the largest in use, for printing presses, have about 3 MB
_TAG_TABLE = 128  # bytes of header before it
_MAX_TAGS = 100  # LittleCMS itself reads no more
_TABLE = b"A2B0"  # it comes before a matrix
_PROFILE_SPACES = {"L": "GRAY", "RGB": "RGB ", "CMYK": "CMYK"}
_SRGB = ImageCms.createProfile("sRGB")

_MOST_GREY_SHIFT = 24
"""Levels by which greys may move in a conversion that comes after the resize.

With a gamma of 2.2 they move by up to 9, with 1.8 by up to 19, with linear numbers by up to 73.
"""

_BUILD_BYTES = 1024 * 1024  # more than a conversion takes while it is built, beside its profile


@dataclass(frozen=True)
class Conversion:
    """Conversion from one profile's numbers in mode L, RGB or CMYK to sRGB.

    `is_last` tells that an image is resized before its colours are converted.
    """

    transform: ImageCms.ImageCmsTransform
    is_last: bool

    def apply(self, image: Image.Image, *, in_place: bool = False) -> Image.Image:
        """Convert the colours of an image in the conversion's mode to mode RGB.

        With `in_place` an `image` in mode RGB becomes the result. That saves a tenth of the conversion.
        """
        if in_place and image.mode == "RGB":
            self.transform.apply_in_place(image)
            return image
        return self.transform.apply(image)


def find_conversion(profile: bytes | None, mode: str) -> Conversion | None:
    """Find how colours of a profile and mode become sRGB. Conversions of profiles seen lately are kept.

    None means that the colours stay as they are. There is no profile, or that of sRGB, or one that is broken,
    malicious, larger than 4 MiB or of another colour space. Colours a little off are better than no answer.
    """
    if not profile or len(profile) > _MAX_PROFILE_BYTES:
        return None
    return _KEPT.find(profile, mode)


def to_srgb(decoded: Decoded) -> Pixels:
    """Convert the whole image, before any resize: uint8, shape (height, width, 3), RGB, read-only.

    `resize` gives the same colours sooner. Some split lists hold digests of these pixels.
    """
    conversion = find_conversion(decoded.profile, decoded.image.mode)
    return np.asarray(as_rgb(decoded.image) if conversion is None else conversion.apply(decoded.image))


class ConversionCache:
    """Conversions used last, by the digest of their profile. Any thread may ask.

    Args:
        max_entries: Profiles that are kept, with or without a conversion.
        max_conversions: Conversions that are kept. Each takes 512 KiB at most, however large the profile.
    """

    def __init__(self, max_entries: int, max_conversions: int) -> None:
        self._max_entries = max_entries
        self._max_conversions = max_conversions
        self._lock = threading.Lock()
        self._kept: OrderedDict[tuple[bytes, str], Conversion | None] = OrderedDict()

    def find(self, profile: bytes, mode: str) -> Conversion | None:
        """Return the conversion from this profile and mode. It is built where it is not kept.

        None means that colours stay as they are. Raises `OutOfMemory`, as other colours would be a wrong answer.
        """
        key = (hashlib.sha256(profile).digest(), mode)
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        try:
            conversion = _build(profile, mode)
        except (ImageCms.PyCMSError, OSError, ValueError, TypeError) as error:
            if is_out_of_memory(error) or not can_allocate(_BUILD_BYTES + 2 * len(profile)):
                raise OutOfMemory(
                    "There is not enough memory to convert the colours of the image. Send it again later."
                ) from error
            return None  # broken: this is not remembered
        with self._lock:
            self._kept[key] = conversion
            while len(self._kept) > self._max_entries or self._num_conversions() > self._max_conversions:
                self._kept.popitem(last=False)
        return conversion

    def _num_conversions(self) -> int:
        return sum(conversion is not None for conversion in self._kept.values())


_KEPT = ConversionCache(max_entries=256, max_conversions=32)


def _build(profile_bytes: bytes, mode: str) -> Conversion | None:
    try:
        tags = _find_tags(profile_bytes)
        if not _is_plain(profile_bytes, tags):
            return None
    except (struct.error, ValueError):  # it ends too soon
        return None
    profile = ImageCms.ImageCmsProfile(io.BytesIO(profile_bytes))
    is_srgb = (profile.profile.profile_description or "").startswith("sRGB")  # it would cost time and rounding
    if is_srgb or profile.profile.xcolor_space != _PROFILE_SPACES[mode]:
        return None
    transform = ImageCms.buildTransform(profile, _SRGB, mode, "RGB")
    by_matrix = profile.profile.is_matrix_shaper and all(name != _TABLE for name, _ in tags)
    return Conversion(transform, is_last=by_matrix and _keeps_greys(transform, mode))


def _keeps_greys(transform: ImageCms.ImageCmsTransform, mode: str) -> bool:
    """Return whether a tone curve is much like that of sRGB.

    Then the converted average is nearly the average of the converted colours (`benchmarks/colour.py`).
    """
    levels = np.arange(256)
    greys = Image.fromarray(levels.astype(np.uint8)[np.newaxis]).convert(mode)
    shifts = np.asarray(transform.apply(greys)).astype(int) - levels[:, np.newaxis]
    return bool(np.abs(shifts).max() <= _MOST_GREY_SHIFT)


def _find_tags(profile: bytes) -> list[tuple[bytes, int]]:
    """List a profile's tags and the bytes that they begin at. Source: ICC.1:2022, 7.3 (the tag table)."""
    (num_tags,) = struct.unpack_from(">I", profile, _TAG_TABLE)
    first = _TAG_TABLE + 4
    return [struct.unpack_from(">4sI", profile, first + 12 * tag) for tag in range(min(num_tags, _MAX_TAGS + 1))]


def _is_plain(profile: bytes, tags: list[tuple[bytes, int]]) -> bool:
    """Return whether a profile has no chains of processing elements, and no tables that claim to be longer than itself.

    A few bytes can chain a hundred thousand elements, a minute's work for any image. LittleCMS reserves half a gigabyte
    for a table before it reads it.

    Source: ICC.1:2022, 10.10 to 10.16 (lut16Type, lut8Type, lutAToBType, multiLocalizedUnicodeType,
    multiProcessElementsType).
    """
    kinds = {offset: profile[offset : offset + 4] for _, offset in tags}
    return len(tags) <= _MAX_TAGS and all(
        kind != b"mpet" and _table_length(profile, kind, offset) <= len(profile) for offset, kind in kinds.items()
    )


def _table_length(profile: bytes, kind: bytes, offset: int) -> int:
    """Return the entries that the table at `offset` claims. 0 means that the reader of this kind looks first."""
    if kind == b"mluc":
        return int.from_bytes(profile[offset + 8 : offset + 12])
    if kind in (b"mft1", b"mft2"):
        num_inputs, num_outputs, num_steps = profile[offset + 8 : offset + 11]
        return int(num_outputs * num_steps**num_inputs)
    if kind == b"mAB ":
        num_inputs, num_outputs = profile[offset + 8 : offset + 10]
        place = int.from_bytes(profile[offset + 24 : offset + 28])  # 0 if there is none
        return num_outputs * math.prod(profile[offset + place : offset + place + num_inputs]) if place else 0
    return 0
