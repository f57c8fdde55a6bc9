"""The request head, before the app hears of it: bounded in size and time, and turned away where there is no room."""

import asyncio
import time
from functools import cached_property, lru_cache
from json.encoder import encode_basestring_ascii
from typing import Any, cast

import structlog
from starlette.datastructures import Headers
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from service import errors
from service.api import problems
from service.api.connection import OneWrite
from service.api.context import Service
from service.api.routes.predict import PATH
from service.api.telemetry import SECURITY_HEADERS, make_request_id, take_request_id

MAX_HEAD_BYTES = 32 * 1024
"""Request line and headers; nginx takes as much, and cookies of browsers come to 4 KiB each."""

HEAD_TIMEOUT_S = 10.0
"""From the connection, or the first byte of a further request on it, to the end of the head."""

_PREDICT = PATH.encode()
_SKIPPED_BYTES = 1024 * 1024  # of the body of a request that is turned away; a larger one is the app's to refuse

_UNREADABLE = (
    "The request cannot be parsed as HTTP/1.1: look at its method, version, lengths and sizes of chunks, or let a "
    "client library write them."
)
_NOT_ONE_HOST = "A request has one Host header, and only HTTP/1.0 may have none: let a client library write it."
_HEAD_TOO_SLOW = f"Request line and headers did not arrive within {HEAD_TIMEOUT_S:g} seconds: send them at once."

_LINGER_S = 2.0  # what a refused sender still writes is thrown away, so that the answer is not lost

_ID = b'"\\u0000"'  # where the request id comes; no text of ours has it

log: structlog.typing.FilteringBoundLogger = structlog.get_logger()


@lru_cache(maxsize=256)  # nearly all are of one kind, and differ in how many images wait
def _prepare(problem: problems.Problem, detail: str) -> tuple[bytes, bytes]:
    """Status line and headers, and the body with `_ID` in it; what depends on the request id is left out."""
    response = problems.problem_response("\0", problem, detail)
    headers = [*SECURITY_HEADERS, *response.raw_headers]
    lines = [b"%b: %b\r\n" % header for header in headers if header[0] != b"content-length"]
    return b"".join([STATUS_LINE[problem.status], *lines]), bytes(response.body)


class BoundedHead(HttpToolsProtocol):
    """uvicorn's protocol, which bounds neither by itself and answers what it cannot parse in plain text.

    A prediction for which there is no room is answered here, too: at five times the load a replica can take, four of
    five requests are, and what the way through the app costs is lost to those that are computed.

    Source: nginx, `client_header_timeout` and `large_client_header_buffers`; RFC 9112, section 3.2, on Host.
    """

    _timer: asyncio.TimerHandle | None = None
    _is_reading = False  # a head has begun and not ended
    _is_refused = False
    _is_between = True  # of no request any byte is still to come
    _is_turned_away = False  # the request at hand has its answer, and the app never hears of it
    _num_bytes = 0
    _owed: tuple[problems.Problem, str, str] | None = None  # a refusal that waits for the answers before it

    @cached_property
    def _service(self) -> Service:
        app: Any = self.config.app  # ours: create_app made it
        return cast(Service, app.state.service)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._one_write = OneWrite(transport, self.loop)
        super().connection_made(cast(asyncio.Transport, self._one_write))
        self._timer = self.loop.call_later(HEAD_TIMEOUT_S, self._give_up)

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        super().connection_lost(exc)

    def on_response_complete(self) -> None:
        self._one_write.flush()  # now: a sender that has ended its side is closed in the next turn
        is_last = not self.pipeline
        super().on_response_complete()
        if is_last and self._owed is not None:
            self._close_with(*self._owed)

    def data_received(self, data: bytes) -> None:
        """Parse; then see whether the sender owes the rest of a head, or of a body that was answered long ago."""
        if self._is_refused:
            return
        was_reading = self._is_reading  # what comes before a head in the same piece does not count
        super().data_received(data)
        if self._is_refused or self.transport.is_closing():
            return
        if self._is_reading and was_reading:
            self._num_bytes += len(data)
            if self._num_bytes > MAX_HEAD_BYTES:
                self._refuse(problems.HEAD_TOO_LARGE, problems.HEAD_TOO_LARGE.meaning)
                return
        is_answered = self._is_turned_away or (self.cycle is not None and self.cycle.response_complete)
        if self._is_reading or (is_answered and not self._is_between):
            self._timer = self._timer or self.loop.call_later(HEAD_TIMEOUT_S, self._give_up)
            return
        self._stop_timer()
        if is_answered and self.timeout_keep_alive_task is None:
            # uvicorn stops this clock at every byte and starts it at every answer; here the answer was first.
            idle_s = self.timeout_keep_alive
            self.timeout_keep_alive_task = self.loop.call_later(idle_s, self.timeout_keep_alive_handler)

    def on_message_begin(self) -> None:
        self._is_reading, self._is_between, self._is_turned_away, self._num_bytes = True, False, False, 0
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._is_reading = False
        if len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers) > MAX_HEAD_BYTES:
            self._refuse(problems.HEAD_TOO_LARGE, problems.HEAD_TOO_LARGE.meaning)
            raise ValueError  # ends the parsing
        num_hosts = sum(name == b"host" for name, _ in self.headers)
        if num_hosts > 1 or (not num_hosts and self.parser.get_http_version() != "1.0"):
            self._refuse(problems.of(errors.MalformedRequest), _NOT_ONE_HOST)
            raise ValueError
        if not self._may_turn_away():
            super().on_headers_complete()
            return
        admission = self._service.admission
        try:
            admission.check_room()
        except errors.QueueFull as error:
            if self._has_key():
                self._turn_away(error, take_request_id(self.headers))
            else:
                super().on_headers_complete()  # the app says that the key is missing
            return
        super().on_headers_complete()
        admission.expect()

    def on_body(self, body: bytes) -> None:
        if not self._is_turned_away:
            super().on_body(body)

    def on_message_complete(self) -> None:
        self._is_between = True
        if not self._is_turned_away:
            super().on_message_complete()

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002 - uvicorn's words
        if not self._is_refused:
            self._refuse(problems.of(errors.MalformedRequest), _UNREADABLE)

    def _give_up(self) -> None:
        if self._is_reading:
            self._refuse(problems.of(errors.BodyTooSlow), _HEAD_TOO_SLOW)
        else:
            self.transport.close()

    def _may_turn_away(self) -> bool:
        """Whether this is a plain prediction; whatever is special about one, the app knows how to refuse it."""
        if self.url.partition(b"?")[0] != _PREDICT or self.parser.get_method() != b"POST":
            return False
        headers = dict(self.headers)
        return (
            self._is_next()
            and self.parser.should_keep_alive()
            and not self._service.health.is_draining
            and not headers.keys() & {b"transfer-encoding", b"expect", b"origin"}
            and int(headers.get(b"content-length", b"0")) <= _SKIPPED_BYTES
        )

    def _has_key(self) -> bool:
        keys = self._service.api_keys
        return keys is None or keys.are_in(Headers(raw=self.headers))

    def _turn_away(self, error: errors.QueueFull, request_id: str) -> None:
        begun_at = time.perf_counter()
        self._is_turned_away = True
        problem = problems.of(type(error))
        self._write(problem, str(error), request_id)
        self._service.recorder.record(
            request_id, "POST", PATH, PATH, problem.status, time.perf_counter() - begun_at, problem.name
        )

    def _refuse(self, problem: problems.Problem, detail: str) -> None:
        self._is_refused = True
        self._stop_timer()
        request_id = make_request_id() if self._is_between else take_request_id(self.headers)
        is_of_body = self.cycle is not None and self.cycle.more_body
        if self._is_next():
            self._close_with(problem, detail, request_id)
        elif not is_of_body:
            self._owed = problem, detail, request_id
        elif self.pipeline:
            self.pipeline.popleft()  # the app has not begun with it, and need not
            self._owed = problem, detail, request_id
        else:
            self._answer_for_the_app(problem, detail, request_id)
        metrics = self._service.metrics
        metrics.requests.labels("other", "unmatched", str(problem.status)).inc()
        metrics.problems[problem.name].inc()
        log.info("request refused", request_id=request_id, problem=problem.name)

    def _is_next(self) -> bool:
        """Whether every request before the one at hand has its answer: the sender takes the next one for its own."""
        return self.cycle is None or self.cycle.response_complete

    def _answer_for_the_app(self, problem: problems.Problem, detail: str, request_id: str) -> None:
        """It is at this request, whose body is broken: unless its answer has begun, it is told that the sender left."""
        if self.cycle.response_started:
            self.loop.call_later(_LINGER_S, self.transport.close)
            return
        self._close_with(problem, detail, request_id)
        self.cycle.disconnected, self.cycle.waiting_for_100_continue = True, False
        self.cycle.message_event.set()

    def _close_with(self, problem: problems.Problem, detail: str, request_id: str) -> None:
        self._owed = None
        self._write(problem, detail, request_id, b"Connection: close\r\n")
        self.loop.call_later(_LINGER_S, self.transport.close)

    def _write(self, problem: problems.Problem, detail: str, request_id: str, more: bytes = b"") -> None:
        head, body = _prepare(problem, detail)
        body = body.replace(_ID, encode_basestring_ascii(request_id).encode(), 1)
        own = b"X-Request-ID: %b\r\n%bContent-Length: %d\r\n\r\n" % (request_id.encode(), more, len(body))
        self.transport.write(head + own + body)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
