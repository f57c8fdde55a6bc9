"""Rules of a request's head, without a connection."""

import pytest

from service.errors import HeadTooLarge, MalformedRequest
from service.wire.heads import MAX_HEAD_BYTES, Framing, check_fields, drop_upgrade, find_head, read_fields

HEAD = b"GET / HTTP/1.1\r\nHost: f\r\n\r\n"
HOST = (b"host", b"flowers")


@pytest.mark.parametrize("before", [b"", b"\r\n", b"\n\n"])
def test_a_head_begins_after_empty_lines(before: bytes) -> None:
    data = b"abc" + before + HEAD + b"more"
    assert find_head(data, 3) == (3 + len(before), len(data) - len(b"more"))


@pytest.mark.parametrize("data", [b"", b"\r\n", b"GE", b"GET /", HEAD[:-1]])
def test_an_unfinished_head_has_no_end(data: bytes) -> None:
    assert find_head(data, 0) is None


@pytest.mark.parametrize(
    "data", [b"\x16\x03", b"get / HTTP/1.1\r\n", b"GET / HTTP/2.0\r\n\r\n", b"GET  / HTTP/1.1\r\n"]
)
def test_nonsense_is_refused_at_its_beginning(data: bytes) -> None:
    with pytest.raises(MalformedRequest):
        find_head(data, 0)


@pytest.mark.parametrize("before", [b"", b"\r\n" * 100])
def test_empty_lines_count_to_the_32_kib(before: bytes) -> None:
    room = MAX_HEAD_BYTES - len(before) - len(HEAD)
    fits = before + HEAD[:-4] + b"x" * room + HEAD[-4:]
    assert find_head(fits, 0) == (len(before), MAX_HEAD_BYTES)
    with pytest.raises(HeadTooLarge):
        find_head(before + HEAD[:-4] + b"x" * (room + 1) + HEAD[-4:], 0)


@pytest.mark.parametrize(
    ("fields", "framing"),
    [
        ([HOST], Framing(0, is_chunked=False)),
        ([HOST, (b"content-length", b" 007 ")], Framing(7, is_chunked=False)),
        ([HOST, (b"content-length", b"0" * 5000)], Framing(0, is_chunked=False)),
        ([HOST, (b"transfer-encoding", b" Chunked ")], Framing(0, is_chunked=True)),
    ],
)
def test_a_head_tells_the_length_of_its_body(fields: list[tuple[bytes, bytes]], framing: Framing) -> None:
    assert check_fields(fields, is_1_0=False) == framing


def test_a_content_length_becomes_plain_digits() -> None:
    fields = [HOST, (b"content-length", b"0" * 5000 + b"12")]
    check_fields(fields, is_1_0=False)
    assert fields[1] == (b"content-length", b"12")


@pytest.mark.parametrize(
    "fields",
    [
        [],
        [HOST, HOST],
        [(b"host", b"a b")],
        [HOST, (b"transfer-encoding", b"gzip, chunked")],
        [HOST, (b"transfer-encoding", b"chunked"), (b"transfer-encoding", b"chunked")],
    ],
)
def test_an_ambiguous_head_is_refused(fields: list[tuple[bytes, bytes]]) -> None:
    with pytest.raises(MalformedRequest):
        check_fields(fields, is_1_0=False)


def test_http_1_0_has_no_chunks() -> None:
    assert check_fields([], is_1_0=True) == Framing(0, is_chunked=False)
    with pytest.raises(MalformedRequest):
        check_fields([(b"transfer-encoding", b"chunked")], is_1_0=True)


def test_offers_to_upgrade_are_dropped() -> None:
    head = b"GET / HTTP/1.1\r\nUpgrade: h2c\r\nHost: f\r\nUPGRADE:x\r\nX-Upgrade: y\r\n\r\n"
    assert drop_upgrade(head) == b"GET / HTTP/1.1\r\nHost: f\r\nX-Upgrade: y\r\n\r\n"


def test_fields_of_a_broken_head_can_be_read() -> None:
    assert read_fields(b"GET / HTTP/1.1\r\nX-Request-ID: mine \r\nno colon\r\nX-Lon") == [
        (b"x-request-id", b"mine"),
        (b"no colon", b""),
    ]
