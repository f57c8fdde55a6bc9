"""Base64 and data URLs of images: the same bytes, or a refusal, in any escapes and at any length."""

import base64
import json
import random
import tracemalloc
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.api.base64_images import decode_image
from service.api.json_bodies import LongText, parse_json
from service.errors import (
    FlowersError,
    ImageBytesTooLarge,
    InvalidImage,
    InvalidParameter,
    MalformedRequest,
    MissingImage,
)

IMAGE = random.Random(0).randbytes(200_000)
SIZES = [1, 2, 3, 4, 47, 48, 49, 49_151, 49_152, 49_153, 98_304, 199_999, 200_000]
"""Around the length of a long string and of a slice."""


def decode(text: str | bytes, max_image_bytes: int = 10**6) -> bytes:
    """Decode a string as it stands in a document, its escapes included."""
    return decode_image(
        parse_json(b'"%b"' % (text.encode() if isinstance(text, str) else text)), "image", max_image_bytes
    )


def encode(image: bytes) -> str:
    return base64.b64encode(image).decode()


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    "prefix", ["", "data:image/jpeg;base64,", "data:;base64,", "DATA:application/octet-stream;BASE64,"]
)
def test_base64_and_data_urls_give_the_bytes(size: int, prefix: str) -> None:
    assert decode(prefix + encode(IMAGE[:size])) == IMAGE[:size]


@pytest.mark.parametrize("size", SIZES)
def test_escapes_of_json_change_nothing(size: int) -> None:
    """PHP escapes each slash, and .NET each plus."""
    text = encode(IMAGE[:size])
    assert decode(text.replace("/", "\\/")) == IMAGE[:size]
    assert decode(text.replace("+", "\\u002B").replace("=", "\\u003d")) == IMAGE[:size]


@given(st.binary(max_size=80), st.data())
def test_a_changed_character_is_never_taken_for_another_image(image: bytes, data: st.DataObject) -> None:
    """Each image has one spelling. The decoder agrees with the encoder, or refuses."""
    text = encode(image) * 1
    position = data.draw(st.integers(0, len(text)))
    changed = (
        text[:position]
        + data.draw(st.sampled_from(["", "A", "=", "-", "_", " ", "B=", "é", "/"]))
        + text[position + 1 :]
    )
    try:
        decoded = decode(changed)
    except FlowersError:
        return
    assert encode(decoded) == changed


BROKEN = {
    "no padding": "QUI",
    "one character": "Q",
    "too much padding": "QUI==",
    "padding alone": "====",
    "padding at the front": "=QUI",
    "padding in the middle": "QUI=QUJD",
    "padding twice": "QUI=QUI=",
    "unused bits": "QUJ=",
    "more unused bits": "QR==",
    "another alphabet": "__-_",
    "a space": "QU I",
    "an escaped line break": "QUJD\\nQUJD",
    "no ASCII": "QUJä",
    "a name": "photo.jpg",
    "a link": "https://host/photo.jpg",
    "a file": "file:///etc/passwd",
    "another scheme": "  s3://bucket/photo.jpg",
    "a plain data URL": "data:image/jpeg,QUJD",
    "a data URL with a parameter": "data:image/jpeg;charset=utf-8;base64,QUJD",
    "a data URL with a space": "data:image/jpeg;base64, QUJD",
}


@pytest.mark.parametrize("text", BROKEN.values(), ids=BROKEN)
@pytest.mark.parametrize("num_before", [0, 300, 65_536, 131_072])
def test_what_is_no_base64_is_refused(text: str, num_before: int) -> None:
    """At the front, in a long string, and at the seams of slices."""
    for position in (0, num_before):
        before = encode(IMAGE)[:position]
        after = encode(IMAGE)[: num_before - position]
        if text.endswith("QUJD") or not after:
            with pytest.raises(InvalidImage, match="image is"):
                decode(before + text + after)


@pytest.mark.parametrize("num_before", [0, 300, 65_536 - 4, 65_536, 200_000])
@pytest.mark.parametrize("text", ["QUJD", "QUI=QUI=", "QUJ="])
def test_seams_of_slices_hide_nothing(num_before: int, text: str) -> None:
    if text == "QUJD":
        assert decode(encode(IMAGE)[:num_before] + text).endswith(b"ABC")
        return
    with pytest.raises(InvalidImage):
        decode(encode(IMAGE)[:num_before] + text)
    with pytest.raises(InvalidImage):
        decode(encode(IMAGE)[:num_before] + "QUI=" + encode(IMAGE)[:100_000])


@pytest.mark.parametrize("num_before", [0, 300, 70_000])
@pytest.mark.parametrize("text", [b"QU\nJD", b"QUJD\x00", b"QU\\xJD", b"QU\\u00JD", b"QU\xff"])
def test_characters_that_json_forbids_are_malformed(num_before: int, text: bytes) -> None:
    with pytest.raises(MalformedRequest):
        decode(encode(IMAGE)[:num_before].encode() + text + b"QUJD")


@pytest.mark.parametrize("value", [None, 1, True, [], {}, ["QUJD"], {"b64": "QUJD"}])
def test_an_image_must_be_a_string(value: Any) -> None:
    with pytest.raises(InvalidParameter, match="instances"):
        decode_image(value, "instances", 100)


@pytest.mark.parametrize("text", ["", "data:;base64,"])
def test_an_empty_string_is_a_missing_image(text: str) -> None:
    with pytest.raises(MissingImage):
        decode(text)


@pytest.mark.parametrize("size", [100, 100_000])
def test_an_image_above_its_limit_is_refused(size: int) -> None:
    assert decode(encode(IMAGE[:size]), size) == IMAGE[:size]
    with pytest.raises(ImageBytesTooLarge, match=f"{size - 1} bytes"):
        decode(encode(IMAGE[:size]), size - 1)


def test_backslashes_alone_are_no_image() -> None:
    with pytest.raises(InvalidImage):
        decode("\\\\" * 100_000)


def test_decoding_takes_the_memory_of_the_image_alone() -> None:
    image = bytes(3_000_000)
    text = parse_json(json.dumps(encode(image)).encode())
    assert isinstance(text, LongText)
    tracemalloc.start()
    try:
        assert decode_image(text, "image", 10**7) == image
        assert tracemalloc.get_traced_memory()[1] < 1.4 * len(image)
    finally:
        tracemalloc.stop()
