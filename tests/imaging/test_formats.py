"""What a file is, its content decides; what it is not, the answer says in safe words."""

import re
import sys

import pytest
from PIL import features
from support.drawing import draw_photograph, encode

from service.errors import UnsupportedImageFormat
from service.imaging.formats import detect_format

PICTURE = draw_photograph(0, 0, (24, 18))


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF"])
def test_each_accepted_format_is_told_from_its_content(image_format: str) -> None:
    if image_format == "AVIF" and not features.check("avif"):
        pytest.skip("this Pillow was built without AVIF")
    assert detect_format(encode(PICTURE, image_format)) == image_format


def test_an_mpo_is_a_jpeg() -> None:
    assert detect_format(encode(PICTURE, "MPO", save_all=True, append_images=[PICTURE])) == "JPEG"


def test_an_avif_under_a_general_brand_is_found() -> None:
    assert detect_format(b"\0\0\0\x1cftypmif1\0\0\0\0mif1avifmiaf") == "AVIF"


def test_avif_is_refused_where_it_cannot_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features, "check", lambda feature: False)
    with pytest.raises(UnsupportedImageFormat, match=r"AVIF\. This installation cannot read it\. Send"):
        detect_format(b"\0\0\0\x1cftypavif\0\0\0\0mif1avifmiaf")


@pytest.mark.parametrize("brands", [b"heic\0\0\0\0mif1heic", b"mif1\0\0\0\0mif1heix", b"hevc\0\0\0\0msf1hevc"])
def test_heic_is_refused_where_it_cannot_be_read(brands: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pi_heif", None)
    with pytest.raises(UnsupportedImageFormat, match=r"a HEIC photograph\. This installation cannot read it\. Send"):
        detect_format(b"\0\0\0\x18ftyp" + brands)


@pytest.mark.parametrize(
    ("data", "seeming"),
    [
        (b"%PDF-1.7\n", "a PDF document"),
        (b"<!DOCTYPE html><html>", "a web page"),
        (b"\xef\xbb\xbf\n  <HTML lang=en>", "a web page"),
        (b'<svg xmlns="http://www.w3.org/2000/svg">', "an SVG drawing"),
        (b'<?xml version="1.0"?><svg>', "an SVG drawing"),
        (b'<?xml version="1.0"?><rss>', "an XML document"),
        (b"\0\0\0\x18ftypisom\0\0\0\0isomavc1", "a video"),
        (b"PK\x03\x04\x14\0", "a ZIP archive or an office document"),
        (b"8BPS\0\x01", "a Photoshop document"),
        (b"\xff\x0a\xfa", "a JPEG XL image"),
        (b"data:image/png;base64,iVBORw0KGgo=", "a data: address"),
        (b'{"image": "iVBORw0KGgo="}', "JSON"),
        (b"BMW sells cars, and this is text", "text"),
        (b"hello", "text"),
    ],
)
def test_a_refusal_says_what_the_file_seems_to_be(data: bytes, seeming: str) -> None:
    with pytest.raises(UnsupportedImageFormat, match=rf"It seems to be {seeming}\. Send the image itself"):
        detect_format(data)


def test_unknown_bytes_are_shown_as_numbers() -> None:
    with pytest.raises(UnsupportedImageFormat, match=r"Its first bytes are 00 01 02 03 fe ff\. "):
        detect_format(b"\0\x01\x02\x03\xfe\xff")


@pytest.mark.parametrize("data", [b"<script>alert(1)</script>", b"\x1b[31mred\r\n", "‮gpj".encode(), b"a" * 600])
def test_a_refusal_never_quotes_the_file(data: bytes) -> None:
    with pytest.raises(UnsupportedImageFormat) as refusal:
        detect_format(data)
    assert re.fullmatch(r"[A-Za-z0-9 :;,.-]+", str(refusal.value))
    assert "alert" not in str(refusal.value)


def test_an_avif_sequence_is_an_avif() -> None:
    assert detect_format(b"\0\0\0\x18ftypavis\0\0\0\0msf1miaf") == "AVIF"
