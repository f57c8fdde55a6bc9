"""The outermost layer: a request id and the security headers on every answer, one log line and counts per request."""

import random
import re
import time
from collections.abc import Iterable

import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.api.metrics import Metrics
from service.api.problems import unexpected_error
from service.inference.predictor import Timings
from service.ranking import Score

log: structlog.typing.FilteringBoundLogger = structlog.get_logger()

# Seeded by the system, and not the system itself: a system call may cost the event loop its turn.
_random = random.Random()  # noqa: S311 - ids are no secrets
_REQUEST_ID = re.compile(rb"[\x21-\x7e]{1,128}")
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})

SECURITY_HEADERS = (
    (b"x-content-type-options", b"nosniff"),  # an answer is what its Content-Type says
    (b"referrer-policy", b"no-referrer"),
    # A page of ours says what it needs in a policy of its own; whatever else a browser shows may load nothing.
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"cache-control", b"no-store"),  # scores of people's photographs; the files of a page say otherwise
)
"""Set on every answer that has not its own; as ASGI wants headers, and ready: to make them is a cost of each answer."""


class Recorder:
    """Counts and logs each answered request, whoever has answered it."""

    def __init__(self, metrics: Metrics, *, access_log: bool) -> None:
        self.metrics = metrics
        self._access_log = access_log

    def record(
        self,
        request_id: str,
        method: str,
        path: str,
        route: str,
        status: int,
        duration_s: float,
        problem: str | None = None,
        prediction: tuple[Score, Timings] | None = None,
        **more: object,
    ) -> None:
        """Once per request.

        Args:
            request_id: as the answer says it.
            method: of any length, as the client wrote it.
            path: the same; for the log.
            route: which path of the API that is, or "unmatched"; for the metrics, whose labels must stay few.
            status: of the answer; 0: there was none.
            duration_s: from the head of the request to the end of the answer.
            problem: name of the problem that was answered.
            prediction: best class and stages, if an image was scored.
            more: for the log.
        """
        self.metrics.observe_request(method if method in _METHODS else "other", route, status, duration_s)
        if problem:
            self.metrics.problems[problem].inc()
        if prediction and status:
            self.metrics.observe_prediction(*prediction)
        if self._access_log:
            log.info(
                "request",
                request_id=request_id,
                method=method[:20],
                path=path[:200],
                status=status,
                duration_ms=round(duration_s * 1000, 2),
                **more,
            )


class Telemetry:
    """Plain ASGI: a layer that wraps bodies would buffer uploads and cost latency.

    It answers what no handler answered, with a 500 or 503 that keeps its cause in the log. It answers HEAD as GET
    without the body. A path with a slash at its end is the path without it.
    """

    def __init__(self, app: ASGIApp, *, recorder: Recorder) -> None:
        self._app = app
        self._recorder = recorder

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, watch its answer."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started_at = time.perf_counter()
        method = scope["method"]
        is_head = method == "HEAD"
        path = scope["path"]
        if is_head or (path.endswith("/") and path != "/"):
            scope = {**scope, "method": "GET" if is_head else method, "path": path.removesuffix("/") or "/"}
        request_id = take_request_id(scope["headers"])
        scope.setdefault("state", {})["request_id"] = request_id
        status = 0

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = list(message.get("headers", ()))
                names = {name for name, _ in headers}
                headers.append((b"x-request-id", request_id.encode()))
                headers.extend(header for header in SECURITY_HEADERS if header[0] not in names)
                message["headers"] = headers
            elif is_head:
                message = {**message, "body": b""}
            await send(message)

        with self._recorder.metrics.in_flight.track_inprogress():
            try:
                await self._app(scope, receive, send_with_headers)
            except Exception as error:
                response = unexpected_error(scope, error)
                if status:
                    raise  # half an answer is out: only cutting the connection tells the client
                await response(scope, receive, send_with_headers)
            finally:
                state = scope["state"]
                self._recorder.record(
                    request_id, method, scope["path"], getattr(scope.get("route"), "path", "unmatched"), status,
                    time.perf_counter() - started_at, state.get("problem"), state.get("prediction"),
                    **state.get("log", {}),
                )  # fmt: skip


def make_request_id() -> str:
    """A UUID that sorts by time: version 7 of RFC 9562 (Python has it from 3.14)."""
    milliseconds = time.time_ns() // 1_000_000
    value = milliseconds << 80 | _random.getrandbits(80)
    value = value & ~(0xF << 76) | 7 << 76  # version
    value = value & ~(0b11 << 62) | 0b10 << 62  # variant
    digits = f"{value:032x}"
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


def take_request_id(headers: Iterable[tuple[bytes, bytes]]) -> str:
    """The caller's, when it is short and printable (no spaces); else a new one. Names of `headers` in lower case."""
    for name, value in headers:
        if name == b"x-request-id":
            return value.decode("ascii") if _REQUEST_ID.fullmatch(value) else make_request_id()
    return make_request_id()
