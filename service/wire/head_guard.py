"""uvicorn's HTTP protocol with limits on whatever lies around bodies, in bytes and in time."""

import asyncio
import enum
import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import httptools
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from service.errors import (
    BodyTooSlow,
    FlowersError,
    HeadTooLarge,
    MalformedRequest,
    OutOfMemory,
    is_out_of_memory,
)
from service.wire.linger import SKIPPED_BYTES, linger_s
from service.wire.send_limits import UnsentClock

MAX_HEAD_BYTES = 32 * 1024
"""Size of a request line and its fields, and of all trailer fields. nginx takes as much for a head."""

HEAD_TIMEOUT_S = 10.0
"""Time from the connection, or from the first byte of a further request, to the end of its head, in seconds."""

TICK_S = 0.5
"""Time between two looks at all clocks, in seconds. A timeout may last so much longer."""

_MAX_CHUNK_FRAMING_BYTES = 32 * 1024  # extensions and zeros, of one body
_PLAIN_CHUNK_BYTES = 16  # an ordinary size line and the ends of two lines
_PARTS_A_TURN = 256  # some milliseconds, in which no other connection is served

_BLANK_LINE = re.compile(rb"\n\r?\n")
_LINE_ENDS = re.compile(rb"[\r\n]*")
_BEGIN = re.compile(rb"[A-Z-]{1,24}( |\Z)")
_REQUEST_LINE = re.compile(rb"[A-Z-]{1,24} [^\x00- \x7f]+ HTTP/1\.([01])\r?\n")
_TRAILER = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+:[^\x00\r\n]*\r\n")
_UPGRADE = re.compile(rb"(?im)^upgrade:[^\n]*\n")
_HOST = re.compile(rb"(\[[0-9A-Fa-f:.]+\]|([A-Za-z0-9._~!$&'()*+,;=-]|%[0-9A-Fa-f]{2})*)(:[0-9]{0,5})?")

_UNREADABLE = (
    "The request cannot be parsed as HTTP/1.1: look at its method, version, lengths and sizes of chunks, or let a "
    "client library write them."
)
_NO_TUNNEL = "CONNECT is for proxies, and this is none: send the request itself."
_NOT_ONE_HOST = (
    "A request has one Host header with a valid name, and only HTTP/1.0 may have none: let a client library write it."
)
_UNKNOWN_CODING = (
    "The body's Transfer-Encoding is not plain chunked of HTTP/1.1: send it chunked, or with a Content-Length."
)
_NO_MEMORY = "There is not enough memory to read the request: send it again after the seconds in Retry-After."
_HEAD_TOO_LARGE = "Request line and headers, or the trailers, have more than 32 KiB: send fewer or shorter ones."
_HEAD_TOO_SLOW = f"Request line and headers did not arrive within {HEAD_TIMEOUT_S:g} seconds: send them at once."

Fields = Sequence[tuple[bytes, bytes]]
"""Header fields in their order, names in lower case."""


@dataclass(frozen=True)
class Hooks:
    """What the wire is told by the service behind it.

    Attributes:
        refuse: Makes and counts the answer to a request that the app never hears of. It gets the kind, the detail and
            the request's fields. The answer is a whole HTTP/1.1 answer without a Connection field.
        admit: Returns such an answer where there is no room for a plain request, or None. It gets method, target and
            fields.
        is_draining: Whether the service is shutting down.
    """

    refuse: Callable[[type[FlowersError], str, Fields], bytes]
    admit: Callable[[str, bytes, Fields], bytes | None]
    is_draining: Callable[[], bool]


class _Part(enum.Enum):
    """Part of a message that the next byte belongs to."""

    HEAD = enum.auto()
    BODY = enum.auto()
    CHUNK_SIZE = enum.auto()
    CHUNK = enum.auto()
    TRAILERS = enum.auto()


class _State(enum.Enum):
    """State of a connection, of those that have a clock here. The app has clocks for the others."""

    HEAD = enum.auto()
    OWED_BODY = enum.auto()
    BETWEEN = enum.auto()


class _Refused(Exception):
    """The way out of the parser for a request that is refused."""

    def __init__(self, kind: type[FlowersError], detail: str) -> None:
        super().__init__(detail)
        self.kind, self.detail = kind, detail


class _HeldFlow(FlowControl):
    """uvicorn's flow control, but nothing is read while `is_held`, whatever the app asks for."""

    is_held = False

    def resume_reading(self) -> None:
        if not self.is_held:
            super().resume_reading()


class HeadGuard(HttpToolsProtocol):
    """Splits what arrives into heads, bodies, chunk lines and trailers, and hands them to the parser one by one.

    The parser judges every byte. The guard knows where each part ends, so it can count it. Where both disagree on the
    end of a message, the connection ends. A request waits unparsed until the one before it is answered. So its
    refusal never overtakes an answer, and what waits on a connection is bounded.

    An offer to upgrade is taken out of the head, and its body is read. Trailers are checked and thrown away.

    Source: nginx, `client_header_timeout` and `large_client_header_buffers`. RFC 9112, sections 2.2, 3.2, 6 and 7.
        RFC 9110, sections 6.5.1 and 7.8.
    """

    hooks: Hooks
    """Set by `behind`."""

    _part = _Part.HEAD
    _unfed = b""
    _is_feeding = False
    _is_refused = False
    _is_turned_away = False  # the request at hand has its answer, and the app never hears of it
    _has_head_end = _has_message_end = False  # as the parser says of the last part
    _num_messages = 0
    _num_left = 0  # bytes of this body or chunk
    _num_framing = 0  # bytes of this body's chunk lines beyond the ordinary, or of its trailers
    _clock_of: tuple[_State, int] | None = None
    _since = 0.0

    @classmethod
    def behind(cls, hooks: Hooks) -> type["HeadGuard"]:
        """Return the protocol for one service, as uvicorn's configuration takes it."""
        return type(cls.__name__, (cls,), {"hooks": hooks})

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.flow = self._held_flow = _HeldFlow(transport)
        self.unsent = UnsentClock(transport)
        self._enter(_State.HEAD)

    def connection_lost(self, exc: Exception | None) -> None:
        self._enter(None)
        self._unfed = b""
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if not self._is_refused:
            self._unfed += data
            self._feed()

    def on_response_complete(self) -> None:
        """In place of uvicorn's, which begins the next request by itself and has a clock of its own."""
        self.server_state.total_requests += 1
        if not self.transport.is_closing():
            self.flow.resume_reading()
            self._feed()

    def resume_writing(self) -> None:
        self.unsent.restart()
        super().resume_writing()
        self._feed()

    # The parts of a message.

    def _feed(self) -> None:
        """Hand the parser what may be parsed by now, and see which clock runs."""
        if self._is_feeding or self._is_refused or self.transport.is_closing():
            return
        self._is_feeding = True
        self._hold(False)
        data, position, num_parts = self._unfed, 0, 0
        try:
            while position < len(data) and not self._has_to_wait() and num_parts < _PARTS_A_TURN:
                if not (num_bytes := self._feed_part(data, position)):
                    break
                position += num_bytes
                num_parts += 1
        except _Refused as refused:
            self._refuse(refused.kind, refused.detail, data[position : position + MAX_HEAD_BYTES])
            return
        finally:
            self._is_feeding = False
        self._unfed = data[position:]
        is_over = num_parts == _PARTS_A_TURN
        if is_over:
            self.loop.call_soon(self._feed)
        self._hold(bool(self._unfed) and (is_over or self._has_to_wait()))
        self._enter(self._find_state())

    def _has_to_wait(self) -> bool:
        """Whether the next request has to, since the one before it has no answer, or its answer is not taken."""
        return self._part is _Part.HEAD and (not self._is_answered() or self.flow.write_paused)

    def _is_answered(self) -> bool:
        return self._is_turned_away or self.cycle is None or bool(self.cycle.response_complete)

    def _hold(self, is_held: bool) -> None:
        if is_held:
            self._held_flow.is_held = True
            self.flow.pause_reading()
        elif self._held_flow.is_held:
            self._held_flow.is_held = False
            self.flow.resume_reading()

    def _feed_part(self, data: bytes, start: int) -> int:
        """Parse one part, or a piece of it, from `start` on. Return its bytes, or 0 where its end has not come."""
        if self._part is _Part.HEAD:
            return self._feed_head(data, start)
        if self._part in (_Part.BODY, _Part.CHUNK):
            return self._feed_data(data, start)
        is_size = self._part is _Part.CHUNK_SIZE
        end = data.find(b"\n", start) + 1
        num_bytes = (end or len(data)) - start
        num_framing = self._num_framing + max(0, num_bytes - _PLAIN_CHUNK_BYTES * is_size)
        if num_framing > (_MAX_CHUNK_FRAMING_BYTES if is_size else MAX_HEAD_BYTES):
            raise _Refused(MalformedRequest, _UNREADABLE) if is_size else _Refused(HeadTooLarge, _HEAD_TOO_LARGE)
        if not end:
            return 0
        self._num_framing = num_framing
        self._feed_line(data[start:end], is_size=is_size)
        return num_bytes

    def _feed_line(self, line: bytes, *, is_size: bool) -> None:
        is_end = not is_size and line == b"\r\n"
        if is_size or is_end:
            self._parse(line)
            self._end_part(is_end=is_end)
        elif not _TRAILER.fullmatch(line):  # the parser would take it for a field of the head
            raise _Refused(MalformedRequest, _UNREADABLE)
        if is_size:
            self._begin_chunk(int(line.partition(b";")[0], 16))

    def _feed_head(self, data: bytes, start: int) -> int:
        """The head is parsed when the whole of it has come. Empty lines before it count."""
        empty = _LINE_ENDS.match(data, start)
        begin = empty.end() if empty else start
        blank = _BLANK_LINE.search(data, begin, start + MAX_HEAD_BYTES)
        if blank is None:
            if len(data) - start >= MAX_HEAD_BYTES:
                raise _Refused(HeadTooLarge, _HEAD_TOO_LARGE)
            line_end = data.find(b"\n", begin) + 1
            if begin < len(data) and not (_REQUEST_LINE if line_end else _BEGIN).match(data, begin):
                raise _Refused(MalformedRequest, _UNREADABLE)
            return 0
        if not _REQUEST_LINE.match(data, begin):
            raise _Refused(MalformedRequest, _UNREADABLE)
        self._is_turned_away = False
        try:
            self._parse(_UPGRADE.sub(b"", data[begin : blank.end()]))
        except _Refused:
            self._part = _Part.HEAD
            raise
        if not self._has_head_end:
            raise _Refused(MalformedRequest, _UNREADABLE)
        self._end_part(is_end=self._part is _Part.HEAD)
        return blank.end() - start

    def _begin_chunk(self, size: int) -> None:
        if size:
            self._part, self._num_left = _Part.CHUNK, size + len(b"\r\n")
        else:
            self._part, self._num_framing = _Part.TRAILERS, 0

    def _feed_data(self, data: bytes, start: int) -> int:
        num_bytes = min(self._num_left, len(data) - start)
        self._parse(memoryview(data)[start : start + num_bytes])
        self._num_left -= num_bytes
        if not self._num_left and self._part is _Part.CHUNK:
            self._part = _Part.CHUNK_SIZE
        self._end_part(is_end=not self._num_left and self._part is _Part.BODY)
        return num_bytes

    def _parse(self, piece: bytes | memoryview) -> None:
        self._has_head_end = self._has_message_end = False
        try:
            self.parser.feed_data(piece)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            cause = error.__context__  # what a method below has raised
            if isinstance(cause, _Refused):
                raise cause from None
            if is_out_of_memory(cause):
                raise _Refused(OutOfMemory, _NO_MEMORY) from None
            raise _Refused(MalformedRequest, _UNREADABLE) from None

    def _end_part(self, *, is_end: bool) -> None:
        """Go on with the next message where this one ends, as both the parser and the guard must say."""
        if is_end != self._has_message_end:
            raise _Refused(MalformedRequest, _UNREADABLE)
        if is_end:
            self._part = _Part.HEAD
            self._num_messages += 1

    # What the parser calls.

    def on_headers_complete(self) -> None:
        self._has_head_end = True
        if self.parser.should_upgrade():
            raise _Refused(MalformedRequest, _NO_TUNNEL)
        self._check_head()
        if self._is_plain() and (answer := self._admit()) is not None:
            self._is_turned_away = True
            self.transport.write(answer)
        else:
            super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        if not self._is_turned_away:
            super().on_body(body)

    def on_message_complete(self) -> None:
        self._has_message_end = True
        if not self._is_turned_away:
            super().on_message_complete()

    def _check_head(self) -> None:
        """Find the host, and how long the body is. A Content-Length becomes digits that any `int` reads."""
        is_1_0 = self.parser.get_http_version() == "1.0"
        self._num_left = num_hosts = num_codings = 0
        for index, (name, value) in enumerate(self.headers):
            if name == b"host":
                num_hosts += 1
                if num_hosts > 1 or not _HOST.fullmatch(value):
                    raise _Refused(MalformedRequest, _NOT_ONE_HOST)
            elif name == b"transfer-encoding":
                num_codings += 1
                if num_codings > 1 or is_1_0 or value.strip().lower() != b"chunked":
                    raise _Refused(MalformedRequest, _UNKNOWN_CODING)
                self._part, self._num_framing = _Part.CHUNK_SIZE, 0
            elif name == b"content-length":
                digits = value.strip().lstrip(b"0") or b"0"  # the parser lets no more than 2**64 through
                self.headers[index] = (name, digits)
                self._num_left = int(digits)
                self._part = _Part.BODY if self._num_left else _Part.HEAD
        if not num_hosts and not is_1_0:
            raise _Refused(MalformedRequest, _NOT_ONE_HOST)
        if is_1_0:
            self.expect_100_continue = False

    def _is_plain(self) -> bool:
        """Whether nothing is special about this request, and its body may be skipped. The app refuses all others."""
        return (
            self._part is not _Part.CHUNK_SIZE
            and self._num_left <= SKIPPED_BYTES
            and not self.expect_100_continue
            and self.parser.should_keep_alive()
            and not self.hooks.is_draining()
        )

    def _admit(self) -> bytes | None:
        return self.hooks.admit(self.parser.get_method().decode("ascii"), self.url, self.headers)

    # Refusals.

    def _refuse(self, kind: type[FlowersError], detail: str, unparsed: bytes) -> None:
        """Answer what cannot go on, and throw away for a while what else arrives."""
        self._is_refused, self._unfed = True, b""
        self._enter(None)
        self._hold(False)
        self.flow.resume_reading()
        self.loop.call_later(linger_s(is_draining=self.hooks.is_draining()), self.transport.close)
        if not self._is_answered():
            self._refuse_body(kind, detail)
        elif self._part is _Part.HEAD:
            is_head = unparsed.lstrip(b"\r\n").startswith(b"HEAD ")
            self._write_last(self.hooks.refuse(kind, detail, _read_fields(unparsed)), has_body=not is_head)

    def _refuse_body(self, kind: type[FlowersError], detail: str) -> None:
        """The app is at this request. Unless its answer has begun, it is told that the client left."""
        if self.cycle.response_started:
            return
        is_head = self.cycle.scope["method"] == "HEAD"
        self._write_last(self.hooks.refuse(kind, detail, self.headers), has_body=not is_head)
        self.cycle.disconnected, self.cycle.waiting_for_100_continue = True, False
        self.cycle.message_event.set()

    def _write_last(self, answer: bytes, *, has_body: bool) -> None:
        head, end, body = answer.partition(b"\r\n\r\n")
        self.transport.write(head + b"\r\nConnection: close" + end + (body if has_body else b""))

    # Clocks.

    def _find_state(self) -> _State | None:
        if self._has_to_wait() or not self._is_answered():
            return None
        if self._part is not _Part.HEAD:
            return _State.OWED_BODY
        return _State.HEAD if self._unfed or not self._num_messages else _State.BETWEEN

    def _enter(self, state: _State | None) -> None:
        """Start the clock of this state, unless it runs already. A further message has a clock of its own."""
        clock_of = None if state is None else (state, self._num_messages)
        if clock_of != self._clock_of:
            self._clock_of, self._since = clock_of, self.loop.time()

    def check(self, now: float) -> None:
        """End the connection where its clock has run out at `now`, on the event loop's clock (seconds)."""
        self.unsent.check(now)
        if self._clock_of is None or self.transport.is_closing() or now - self._since < self._seconds():
            return
        if self._part is _Part.HEAD and self._unfed.strip(b"\r\n"):
            self._refuse(BodyTooSlow, _HEAD_TOO_SLOW, self._unfed)
        else:
            self.transport.close()

    def _seconds(self) -> float:
        """How long the present state may last."""
        state = self._clock_of[0] if self._clock_of else None
        if state is _State.BETWEEN:
            return self.timeout_keep_alive
        return linger_s(is_draining=self.hooks.is_draining()) if state is _State.OWED_BODY else HEAD_TIMEOUT_S


async def watch_clocks(connections: Collection[HeadGuard]) -> None:
    """Check all connections twice a second, until cancelled.

    One task for all of them costs less than timers for each request.
    """
    loop = asyncio.get_running_loop()
    while True:
        await asyncio.sleep(TICK_S)
        for connection in tuple(connections):
            connection.check(loop.time())


def _read_fields(head: bytes) -> Fields:
    """The fields of a head that need not be whole or right."""
    lines = [line.partition(b":") for line in head.split(b"\r\n")[1:-1]]
    return [(name.lower(), value.strip(b" \t")) for name, _, value in lines]
