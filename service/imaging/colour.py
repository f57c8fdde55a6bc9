"""Any mode of picture -> 8-bit sRGB: depth, transparency, colour profile. The table is in docs/images.md."""

import io
import math
import struct

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

_MAX_PROFILE_BYTES = 4 * 1024 * 1024  # the largest in use, for printing presses, have about 3 MB
_TAG_TABLE = 128  # bytes of header before it
_MAX_TAGS = 100  # LittleCMS itself reads no more
_PROFILE_SPACES = {"L": "GRAY", "RGB": "RGB ", "CMYK": "CMYK"}
_SRGB = ImageCms.createProfile("sRGB")


def to_srgb(image: Image.Image) -> Image.Image:
    """The loaded `image` in mode RGB or L: 8 bits per channel, on white where transparent, its profile applied.

    Grey stays L, which takes a quarter of the memory: `as_rgb` is for when it is small.
    """
    profile = image.info.get("icc_profile")
    flat = _on_white(_eight_bits(image))
    converted = _through_profile(flat, profile)
    if converted is not None:
        return converted
    return flat if flat.mode == "L" else as_rgb(flat)


def as_rgb(image: Image.Image) -> Image.Image:
    """In mode RGB; `image` itself if it is."""
    return image if image.mode == "RGB" else image.convert("RGB")


def _eight_bits(image: Image.Image) -> Image.Image:
    """Grey of 16 bits keeps its high byte, as 16-bit colour does in Pillow; wider grey is stretched.

    32-bit and float numbers have no agreed white: the least becomes black and the greatest white.
    """
    if image.mode.startswith("I;16"):
        values = np.asarray(image)
        grey = (values >> 8).astype(np.uint8)
        if "transparency" in image.info:
            grey[values == image.info["transparency"]] = 255
        return Image.fromarray(grey)
    if image.mode in ("I", "F"):
        return Image.fromarray(_stretch(np.array(image, dtype=np.float32)))
    return image


def _stretch(numbers: NDArray[np.float32]) -> NDArray[np.uint8]:
    """The least number becomes 0, the greatest 255; those that are none, 0. In place, for memory's sake."""
    finite = np.isfinite(numbers)
    low = float(numbers.min(where=finite, initial=np.inf))
    high = float(numbers.max(where=finite, initial=-np.inf))
    if low >= high:
        return np.zeros(numbers.shape, np.uint8)
    with np.errstate(all="ignore"):  # numbers at the end of their range may overflow: to white, as it should be
        numbers -= low
        numbers /= high - low
        numbers *= 255
    np.nan_to_num(numbers, copy=False, nan=0, posinf=255, neginf=0)
    return np.rint(numbers, out=numbers).clip(0, 255).astype(np.uint8)


def _on_white(image: Image.Image) -> Image.Image:
    """Mode L, RGB, CMYK or another without transparency; what was transparent shows white paper."""
    if image.mode in ("La", "RGBa"):
        image = image.convert(image.mode.upper())
    if image.has_transparency_data:
        layer = image if image.mode == "RGBA" else image.convert("RGBA")
        paper = Image.new("RGB", image.size, "white")
        paper.paste(layer, mask=layer)
        return paper
    if image.mode == "1":
        return image.convert("L")
    return image if image.mode in _PROFILE_SPACES else image.convert("RGB")


def _through_profile(image: Image.Image, profile_bytes: bytes | None) -> Image.Image | None:
    """The picture in sRGB, or None if it has no profile, one of sRGB, or one that cannot be used."""
    if not profile_bytes or len(profile_bytes) > _MAX_PROFILE_BYTES:
        return None
    try:
        if not _is_plain(profile_bytes):
            return None
        profile = ImageCms.ImageCmsProfile(io.BytesIO(profile_bytes))
        if profile.profile.xcolor_space != _PROFILE_SPACES[image.mode] or _is_srgb(profile):
            return None
        return ImageCms.profileToProfile(image, profile, _SRGB, outputMode="RGB")
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError, struct.error):
        return None  # colours a little off are better than no answer


def _is_plain(profile: bytes) -> bool:
    """Without chains of processing elements: a few bytes can chain a hundred thousand, a minute's work for any picture.

    And without tables that say they are longer than the whole profile: LittleCMS has memory for them, up to half a
    gigabyte, before it looks for what they hold.

    Source: ICC.1:2022, 7.3 (the tag table) and 10.10 to 10.16 (lut16Type, lut8Type, lutAToBType,
    multiLocalizedUnicodeType, multiProcessElementsType).
    """
    (num_tags,) = struct.unpack_from(">I", profile, _TAG_TABLE)
    if num_tags > _MAX_TAGS:
        return False
    offsets = [struct.unpack_from(">I", profile, _TAG_TABLE + 4 + 12 * tag + 4)[0] for tag in range(num_tags)]
    kinds = {offset: profile[offset : offset + 4] for offset in offsets}
    return all(
        kind != b"mpet" and _table_length(profile, kind, offset) <= len(profile) for offset, kind in kinds.items()
    )


def _table_length(profile: bytes, kind: bytes, offset: int) -> int:
    """How many entries the table of this kind at `offset` says it has; 0 for kinds whose reader looks first."""
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


def _is_srgb(profile: ImageCms.ImageCmsProfile) -> bool:
    """Most profiles say what is assumed anyway; to convert would cost time and rounding."""
    return (profile.profile.profile_description or "").startswith("sRGB")
