"""The format of a file, told from its first bytes. Names and content types from clients are not believed."""

import struct

from PIL import features

from service.errors import UnsupportedImageFormat
from service.imaging import heif

_ACCEPTED = (
    (b"\xff\xd8\xff", "JPEG"),  # also MPO: a JPEG with more JPEGs behind it
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
    (b"II*\x00", "TIFF"),
    (b"MM\x00*", "TIFF"),
    (b"II+\x00", "TIFF"),  # BigTIFF
)
_BMP_HEADER_SIZES = frozenset({12, 40, 52, 56, 64, 108, 124})  # "BM" alone begins many a text

_REFUSED = (
    (b"%PDF", "a PDF document"),
    (b"PK\x03\x04", "a ZIP archive or an office document"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"8BPS", "a Photoshop document"),
    (b"\x00\x00\x01\x00", "an icon"),
    (b"\x00\x00\x00\x0cjP  ", "a JPEG 2000 image"),
    (b"\xff\x4f\xff\x51", "a JPEG 2000 image"),
    (b"\xff\x0a", "a JPEG XL image"),
    (b"\x00\x00\x00\x0cJXL ", "a JPEG XL image"),
    (b"%!PS", "a PostScript document"),
    (b"\x1aE\xdf\xa3", "a video"),
    (b"MM\x00+", "a big-endian BigTIFF"),  # Pillow 13 takes its header for that of an ordinary TIFF
    (b"MZ", "a program"),
    (b"\x7fELF", "a program"),
)
_REFUSED_TEXT = (
    (b"<svg", "an SVG drawing"),
    (b"<!doctype html", "a web page"),
    (b"<html", "a web page"),
    (b"<?xml", "an XML document"),
    (b"{", "JSON"),
    (b"data:", "a data: address"),
)
_REMEDY = "Send the image itself, as JPEG, PNG or WebP"


def detect_format(data: bytes) -> str:
    """Return the accepted format that 512 bytes of `data` begin like: JPEG, PNG, GIF, TIFF, BMP, WEBP, AVIF or HEIF.

    Raises:
        UnsupportedImageFormat: It begins like no accepted format. The message says what it seems to be.
    """
    for magic, image_format in _ACCEPTED:
        if data.startswith(magic):
            return image_format
    if data[:2] == b"BM" and int.from_bytes(data[14:18], "little") in _BMP_HEADER_SIZES:
        return "BMP"
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WEBP"
    if _brands(data) & {b"avif", b"avis"}:
        if features.check("avif"):
            return "AVIF"
        raise UnsupportedImageFormat(f"The file is AVIF. This installation cannot read it. {_REMEDY}.")
    if _brands(data) & heif.BRANDS:
        if heif.can_read_heif():
            return heif.FORMAT
        raise UnsupportedImageFormat(f"The file is a HEIC photograph. This installation cannot read it. {_REMEDY}.")
    seeming = _describe(data)
    raise UnsupportedImageFormat(f"The file is not an image that is read here. {seeming}. {_REMEDY}.")


def _brands(data: bytes) -> frozenset[bytes]:
    """Return the brands that the first box of an ISO media file claims. Other files have none."""
    if data[4:8] != b"ftyp":
        return frozenset()
    (size,) = struct.unpack_from(">I", data)
    end = min(size, len(data), 256)
    return frozenset(data[start : start + 4] for start in range(8, end, 4) if start != 12)  # 12: a version


def _describe(data: bytes) -> str:
    """Say what the file seems to be, without quoting it. The text ends in web pages and logs."""
    for magic, name in _REFUSED:
        if data.startswith(magic):
            return f"It seems to be {name}"
    if _brands(data):
        return "It seems to be a video"
    start = data[:512].lstrip(b"\xef\xbb\xbf \t\r\n")
    for magic, name in _REFUSED_TEXT:
        if start[: len(magic)].lower() == magic:
            return f"It seems to be {'an SVG drawing' if b'<svg' in start.lower() else name}"
    if start and all(32 <= byte < 127 or byte in b"\t\r\n" for byte in start):
        return "It seems to be text"
    return f"Its first bytes are {data[:8].hex(' ')}"
