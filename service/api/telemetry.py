"""The outermost layer: a request id and the security headers on every answer, one log line and counts per request."""

import os
import re
import time
import uuid

import structlog
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.api.metrics import Metrics
from service.api.problems import internal_error

log: structlog.typing.FilteringBoundLogger = structlog.get_logger()

_REQUEST_ID = re.compile(rb"[\x21-\x7e]{1,128}")
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})

SECURITY_HEADERS = {
    "X-Content-Type-Options": "nosniff",  # an answer is what its Content-Type says
    "Referrer-Policy": "no-referrer",
    # A page of ours says what it needs in a policy of its own; whatever else a browser shows may load nothing.
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cache-Control": "no-store",  # scores of people's photographs; the files of a page say otherwise
}
"""Set on every answer that has not its own."""


class Telemetry:
    """Plain ASGI: a layer that wraps bodies would buffer uploads and cost latency.

    It answers what no handler answered, with a 500 that keeps its cause in the log, and HEAD as GET without the body.
    """

    def __init__(self, app: ASGIApp, *, metrics: Metrics, access_log: bool) -> None:
        self._app = app
        self._metrics = metrics
        self._access_log = access_log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, watch its answer."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started_at = time.perf_counter()
        method = scope["method"]
        is_head = method == "HEAD"
        if is_head:
            scope = {**scope, "method": "GET"}
        request_id = _take_request_id(scope)
        scope.setdefault("state", {})["request_id"] = request_id
        status = 0

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers["X-Request-ID"] = request_id
                for name, value in SECURITY_HEADERS.items():
                    headers.setdefault(name, value)
            elif is_head:
                message = {**message, "body": b""}
            await send(message)

        with self._metrics.in_flight.track_inprogress():
            try:
                await self._app(scope, receive, send_with_headers)
            except Exception:
                log.exception("request failed", request_id=request_id)
                response = internal_error(scope)
                if status:
                    raise  # half an answer is out: only cutting the connection tells the client
                await response(scope, receive, send_with_headers)
            finally:
                self._count(scope, method, status, time.perf_counter() - started_at)

    def _count(self, scope: Scope, method: str, status: int, duration_s: float) -> None:
        state = scope["state"]
        route = getattr(scope.get("route"), "path", state.get("route", "unmatched"))
        self._metrics.requests.labels(method if method in _METHODS else "other", route, str(status)).inc()
        self._metrics.duration.labels(route, str(status)).observe(duration_s)
        if "problem" in state:
            self._metrics.problems.labels(state["problem"]).inc()
        if self._access_log:
            log.info(
                "request",
                request_id=state["request_id"],
                method=method[:20],
                path=scope["path"][:200],
                status=status,
                duration_ms=round(duration_s * 1000, 2),
                **state.get("log", {}),
            )


def make_request_id() -> str:
    """A UUID that sorts by time: version 7 of RFC 9562 (Python has it from 3.14)."""
    milliseconds = time.time_ns() // 1_000_000
    random = int.from_bytes(os.urandom(10), "big")
    value = milliseconds << 80 | random
    value = value & ~(0xF << 76) | 7 << 76  # version
    value = value & ~(0b11 << 62) | 0b10 << 62  # variant
    return str(uuid.UUID(int=value))


def _take_request_id(scope: Scope) -> str:
    """The caller's, when it is short and printable (no spaces); else a new one."""
    for name, value in scope["headers"]:
        if name == b"x-request-id":
            return value.decode("ascii") if _REQUEST_ID.fullmatch(value) else make_request_id()
    return make_request_id()
