"""Delimiters of multipart bodies, whatever lies around them and however the body is cut."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.api.delimiters import Delimiters

BEFORE = [b"", b"\r\n", b"text\r\n", b"one\r\ntwo--b\r\n--\r\n\r\n", b"\r\n--bx\r\n", b"--b:\r\n"]
PADDING = [b"", b" ", b" \t  "]


def plain(body: bytes, sizes: list[int]) -> bytes:
    """The body with plain delimiters, fed in pieces of these sizes, over and over."""
    delimiters, out, position = Delimiters(b"b"), b"", 0
    for size in itertools.cycle(sizes):
        if position >= len(body):
            return out + delimiters.rest()
        out += delimiters.feed(body[position : position + size])
        position += size
    raise AssertionError


@pytest.mark.parametrize("sizes", [[1], [2], [3, 1], [7], [1000]])
def test_text_before_and_blanks_behind_delimiters_are_passed_over(sizes: list[int]) -> None:
    kept = b"\r\nname: x\r\n\r\n\r\n--bX \r\n--b  y\r\n-- b\r\n\r--b"
    for before, padding in itertools.product(BEFORE, PADDING):
        body = before + b"--b" + padding + kept + b"\r\n--b" + padding + b"\r\n\r\nmore\r\n--b--"
        assert plain(body, sizes) == b"--b" + kept + b"\r\n--b\r\n\r\nmore\r\n--b--"


@given(st.binary(max_size=200), st.lists(st.integers(1, 20), min_size=1, max_size=5))
def test_what_lies_between_delimiters_is_left_as_it_is(data: bytes, sizes: list[int]) -> None:
    data = data.replace(b"\r\n--b", b"\r\n--c")
    body = b"--b\r\n\r\n" + data + b"\r\n--b--\r\n"
    assert plain(body, sizes) == body


def test_without_a_delimiter_nothing_is_passed_on_or_kept() -> None:
    delimiters = Delimiters(b"b")
    assert delimiters.feed(b"\r\n-- no delimiter\r\n" * 100_000) == b""
    assert delimiters.rest() == b""
