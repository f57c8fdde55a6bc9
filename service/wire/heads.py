"""Heads of requests: rules of their end, lines, host and framing, and the service that judges them.

Source: RFC 9112, sections 2.2, 3.2 and 6. RFC 9110, section 7.8.
"""

import re
from collections.abc import Sequence
from typing import NamedTuple, Protocol

from service.errors import FlowersError, HeadTooLarge, MalformedRequest

Fields = Sequence[tuple[bytes, bytes]]
"""Header fields in their order, names in lower case."""

MAX_HEAD_BYTES = 32 * 1024
"""Size of a request line and its fields, and of all trailer fields. nginx takes as much for a head."""

_BLANK_LINE = re.compile(rb"\n\r?\n")
_LINE_ENDS = re.compile(rb"[\r\n]*")
_BEGIN = re.compile(rb"[A-Z-]{1,24}( |\Z)")
_REQUEST_LINE = re.compile(rb"[A-Z-]{1,24} [^\x00- \x7f]+ HTTP/1\.([01])\r?\n")
_UPGRADE = re.compile(rb"(?im)^upgrade:[^\n]*\n")
_HOST = re.compile(rb"(\[[0-9A-Fa-f:.]+\]|([A-Za-z0-9._~!$&'()*+,;=-]|%[0-9A-Fa-f]{2})*)(:[0-9]{0,5})?")

_UNREADABLE = (
    "The request cannot be parsed as HTTP/1.1. Look at its method, version, lengths and sizes of chunks, or let a "
    "client library write them."
)
_HEAD_TOO_LARGE = "Request line and headers, or the trailers, have more than 32 KiB. Send fewer or shorter ones."
_NOT_ONE_HOST = (
    "A request has one Host header with a valid name, and only HTTP/1.0 may have none. Let a client library write it."
)
_UNKNOWN_CODING = (
    "The body's Transfer-Encoding is not plain chunked of HTTP/1.1. Send it chunked, or with a Content-Length."
)


class Hooks(Protocol):
    """The service behind the wire. It makes whole HTTP/1.1 answers without a Connection field."""

    def refuse(self, error: FlowersError, fields: Fields) -> bytes:
        """Make and count the answer to a request that the app never sees. Its fields may be incomplete."""

    def admit(self, method: str, target: bytes, fields: Fields) -> bytes | None:
        """Make the answer to a plain request that there is no room for, or return None."""

    def is_draining(self) -> bool:
        """Return whether the service is shutting down."""


def unreadable() -> MalformedRequest:
    """Return the refusal of a request that is no HTTP/1.1."""
    return MalformedRequest(_UNREADABLE)


def too_large() -> HeadTooLarge:
    """Return the refusal of fields above `MAX_HEAD_BYTES`."""
    return HeadTooLarge(_HEAD_TOO_LARGE)


class Framing(NamedTuple):
    """Length of a body, as its head announces it. `num_bytes` is 0 for a chunked one."""

    num_bytes: int
    is_chunked: bool


def find_head(data: bytes, start: int) -> tuple[int, int] | None:
    """Return where a head begins and ends, or None where its end has not come.

    Empty lines before a head count to its size.

    Raises:
        HeadTooLarge, MalformedRequest: It is too large, or it begins like no request.
    """
    empty = _LINE_ENDS.match(data, start)
    begin = empty.end() if empty else start
    blank = _BLANK_LINE.search(data, begin, start + MAX_HEAD_BYTES)
    if blank is None and len(data) - start >= MAX_HEAD_BYTES:
        raise too_large()
    has_line = blank is not None or data.find(b"\n", begin) >= 0
    if begin < len(data) and not (_REQUEST_LINE if has_line else _BEGIN).match(data, begin):
        raise unreadable()
    return None if blank is None else (begin, blank.end())


def drop_upgrade(head: bytes) -> bytes:
    """Return a head without its offers to upgrade."""
    return _UPGRADE.sub(b"", head)


def check_fields(fields: list[tuple[bytes, bytes]], *, is_1_0: bool) -> Framing:
    """Check the host, and find the length of the body. A Content-Length becomes digits that any `int` reads.

    Raises:
        MalformedRequest: There is not one valid host, or the body has a coding that is not served.
    """
    num_bytes = num_hosts = num_codings = 0
    for index, (name, value) in enumerate(fields):
        if name == b"host":
            num_hosts += 1
            if num_hosts > 1 or not _HOST.fullmatch(value):
                raise MalformedRequest(_NOT_ONE_HOST)
        elif name == b"transfer-encoding":
            num_codings += 1
            if num_codings > 1 or is_1_0 or value.strip().lower() != b"chunked":
                raise MalformedRequest(_UNKNOWN_CODING)
        elif name == b"content-length":
            digits = value.strip().lstrip(b"0") or b"0"  # the parser lets no more than 2**64 through
            fields[index] = (name, digits)
            num_bytes = int(digits)
    if not num_hosts and not is_1_0:
        raise MalformedRequest(_NOT_ONE_HOST)
    return Framing(num_bytes, is_chunked=bool(num_codings))


def read_fields(head: bytes) -> Fields:
    """Return the fields of a head that need not be whole or right."""
    lines = [line.partition(b":") for line in head.split(b"\r\n")[1:-1]]
    return [(name.lower(), value.strip(b" \t")) for name, _, value in lines]
