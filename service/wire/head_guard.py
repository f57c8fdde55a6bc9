"""uvicorn's HTTP protocol with limits on a head's size and time. It answers malformed requests as problems."""

import asyncio
import enum
import re

import httptools
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from service.errors import BodyTooSlow, FlowersError, MalformedRequest, OutOfMemory, is_out_of_memory
from service.wire import heads
from service.wire.clocks import HEAD_TIMEOUT_S, Clock, State
from service.wire.heads import MAX_HEAD_BYTES, Hooks, too_large, unreadable
from service.wire.linger import SKIPPED_BYTES, linger_s
from service.wire.send_limits import UnsentClock

_MAX_CHUNK_FRAMING_BYTES = 32 * 1024  # extensions and zeros, of one body
_PLAIN_CHUNK_BYTES = 16  # an ordinary size line and the ends of two lines
PARTS_A_TURN = 256  # some milliseconds, in which no other connection is served

_TRAILER = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+:[^\x00\r\n]*\r\n")

_NO_TUNNEL = "CONNECT is for proxies, and this is none. Send the request itself."
_NO_MEMORY = "There is not enough memory to read the request. Send it again after the seconds in Retry-After."
_HEAD_TOO_SLOW = f"Request line and headers did not arrive within {HEAD_TIMEOUT_S:g} seconds. Send them at once."


class _Part(enum.Enum):
    """Part of a message that the next byte belongs to."""

    HEAD = enum.auto()
    BODY = enum.auto()
    CHUNK_SIZE = enum.auto()
    CHUNK = enum.auto()
    TRAILERS = enum.auto()


class _HeldFlow(FlowControl):
    """uvicorn's flow control. It reads nothing while `is_held`, even if the app asks."""

    is_held = False

    def resume_reading(self) -> None:
        if not self.is_held:
            super().resume_reading()


class HeadGuard(HttpToolsProtocol):
    """Splitter of arriving bytes into heads, bodies, chunk lines and trailers. It feeds the parser one by one.

    The parser judges every byte. The guard knows the end of each part, so it can count it. Where both disagree on the
    end of a message, the connection ends. A request waits unparsed until the one before it is answered. So a refusal
    never overtakes an answer, and waiting bytes are bounded.
    An offer to upgrade is taken out of the head, and its body is read. Trailers are checked and thrown away.

    Source: nginx, `large_client_header_buffers`. RFC 9112, section 7. RFC 9110, section 6.5.1.
    """

    hooks: Hooks  # set by `behind`
    _part = _Part.HEAD
    _unfed = b""
    _is_feeding = False
    _is_refused = False
    _is_turned_away = False  # the request at hand has its answer, and the app never sees it
    _has_head_end = _has_message_end = False  # as the parser says of the last part
    _num_messages = 0
    _num_left = 0  # bytes of this body or chunk
    _num_framing = 0  # bytes of this body's chunk lines beyond the ordinary, or of its trailers

    @classmethod
    def behind(cls, hooks: Hooks) -> type["HeadGuard"]:
        """Return the protocol for one service, as uvicorn's configuration takes it."""
        return type(cls.__name__, (cls,), {"hooks": hooks})

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.flow = self._held_flow = _HeldFlow(transport)
        self.unsent = UnsentClock(transport)
        self._clock = Clock(self.timeout_keep_alive, self.hooks.is_draining, self.loop.time)
        self._clock.enter(State.HEAD)

    def data_received(self, data: bytes) -> None:
        if not self._is_refused:
            self._unfed += data
            self._feed()

    def on_response_complete(self) -> None:
        """Replace uvicorn's, which begins the next request by itself and has a clock of its own."""
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
        """Feed the parser as far as it may go now, and start the clock of the state that follows."""
        if self._is_feeding or self._is_refused or self.transport.is_closing():
            return
        self._is_feeding = True
        self._hold(False)
        data, position, num_parts = self._unfed, 0, 0
        try:
            while position < len(data) and not self._has_to_wait() and num_parts < PARTS_A_TURN:
                if not (num_bytes := self._feed_part(data, position)):
                    break
                position += num_bytes
                num_parts += 1
        except FlowersError as error:
            self._refuse(error, data[position : position + MAX_HEAD_BYTES])
            return
        finally:
            self._is_feeding = False
        self._unfed = data[position:]
        is_over = num_parts == PARTS_A_TURN
        if is_over:
            self.loop.call_soon(self._feed)
        self._hold(bool(self._unfed) and (is_over or self._has_to_wait()))
        self._clock.enter(self._find_state(), self._num_messages)

    def _has_to_wait(self) -> bool:
        """Return whether the next request waits for the answer before it, or for the client to take that."""
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
        """Parse one part, or a piece of it, from `start` on. Return its length. 0 means that its end has not come."""
        if self._part is _Part.HEAD:
            return self._feed_head(data, start)
        if self._part in (_Part.BODY, _Part.CHUNK):
            return self._feed_data(data, start)
        return self._feed_line(data, start, is_size=self._part is _Part.CHUNK_SIZE)

    def _feed_line(self, data: bytes, start: int, *, is_size: bool) -> int:
        end = data.find(b"\n", start) + 1
        num_bytes = (end or len(data)) - start
        num_framing = self._num_framing + max(0, num_bytes - _PLAIN_CHUNK_BYTES * is_size)
        if num_framing > (_MAX_CHUNK_FRAMING_BYTES if is_size else MAX_HEAD_BYTES):
            raise unreadable() if is_size else too_large()
        if not end:
            return 0
        self._num_framing = num_framing
        line = data[start:end]
        is_end = not is_size and line == b"\r\n"
        if is_size or is_end:
            self._parse(line)
            self._end_part(is_end=is_end)
        elif not _TRAILER.fullmatch(line):  # the parser would take it for a field of the head
            raise unreadable()
        if is_size:
            size = int(line.partition(b";")[0], 16)
            self._part = _Part.CHUNK if size else _Part.TRAILERS
            self._num_left = size + len(b"\r\n")
            self._num_framing = self._num_framing if size else 0
        return num_bytes

    def _feed_head(self, data: bytes, start: int) -> int:
        """Parse a head when all of it has come."""
        if (found := heads.find_head(data, start)) is None:
            return 0
        begin, end = found
        self._is_turned_away = False
        try:
            self._parse(heads.drop_upgrade(data[begin:end]))
        except FlowersError:
            self._part = _Part.HEAD
            raise
        if not self._has_head_end:
            raise unreadable()
        self._end_part(is_end=self._part is _Part.HEAD)
        return end - start

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
            if isinstance(cause, FlowersError):
                raise cause from None
            if is_out_of_memory(cause):
                raise OutOfMemory(_NO_MEMORY) from None
            raise unreadable() from None

    def _end_part(self, *, is_end: bool) -> None:
        """Go on with the next message where parser and guard agree that this one ends."""
        if is_end != self._has_message_end:
            raise unreadable()
        if is_end:
            self._part = _Part.HEAD
            self._num_messages += 1

    # What the parser calls.

    def on_headers_complete(self) -> None:
        self._has_head_end = True
        if self.parser.should_upgrade():
            raise MalformedRequest(_NO_TUNNEL)
        is_1_0 = self.parser.get_http_version() == "1.0"
        self._num_left, is_chunked = heads.check_fields(self.headers, is_1_0=is_1_0)
        if is_chunked:
            self._part, self._num_framing = _Part.CHUNK_SIZE, 0
        elif self._num_left:
            self._part = _Part.BODY
        if is_1_0:
            self.expect_100_continue = False
        method = self.parser.get_method().decode("ascii")
        if self._is_plain() and (answer := self.hooks.admit(method, self.url, self.headers)) is not None:
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

    def _is_plain(self) -> bool:
        """Return whether the request has nothing special, and its body may be skipped. The app refuses others."""
        return (
            self._part is not _Part.CHUNK_SIZE
            and self._num_left <= SKIPPED_BYTES
            and not self.expect_100_continue
            and self.parser.should_keep_alive()
            and not self.hooks.is_draining()
        )

    # Refusals.

    def _refuse(self, error: FlowersError, unparsed: bytes) -> None:
        """Refuse the request at hand. Further bytes are thrown away for a while.

        Unless an answer of the app has begun, the app sees the client leave.
        """
        self._is_refused, self._unfed = True, b""
        self._clock.enter(None)
        self._hold(False)
        self.flow.resume_reading()
        self.loop.call_later(linger_s(is_draining=self.hooks.is_draining()), self.transport.close)
        if self._is_answered():
            if self._part is not _Part.HEAD:
                return
            is_head, fields = unparsed.lstrip(b"\r\n").startswith(b"HEAD "), heads.read_fields(unparsed)
        else:
            if self.cycle.response_started:
                return
            is_head, fields = self.cycle.scope["method"] == "HEAD", self.headers
            self.cycle.disconnected, self.cycle.waiting_for_100_continue = True, False
            self.cycle.message_event.set()
        head, end, body = self.hooks.refuse(error, fields).partition(b"\r\n\r\n")
        self.transport.write(head + b"\r\nConnection: close" + end + (b"" if is_head else body))

    # Clocks.

    def _find_state(self) -> State | None:
        if self._has_to_wait() or not self._is_answered():
            return None
        if self._part is not _Part.HEAD:
            return State.OWED_BODY
        return State.HEAD if self._unfed or not self._num_messages else State.BETWEEN

    def check(self, now: float) -> None:
        """End the connection where its clock has run out at `now`, in seconds of the event loop."""
        self.unsent.check(now)
        if self.transport.is_closing() or not self._clock.has_run_out(now):
            return
        if self._part is _Part.HEAD and self._unfed.strip(b"\r\n"):
            self._refuse(BodyTooSlow(_HEAD_TOO_SLOW), self._unfed)
        else:
            self.transport.close()
