"""Outermost layer of the app. It adds an id and security headers to each answer, logs it and counts it."""

import time

import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.api.metrics import Metrics
from service.api.problems import error_response
from service.api.protocols.protocol import Protocols
from service.api.record import RequestRecord, take_request_id
from service.api.tracing import Tracing, find_traceparent

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_MAX_PATH_LENGTH = 200

SECURITY_HEADERS = (
    (b"x-content-type-options", b"nosniff"),  # an answer is what its Content-Type says
    (b"referrer-policy", b"no-referrer"),
    # Our pages have policies of their own. Anything else that a browser shows may load nothing.
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"cache-control", b"no-store"),  # scores of people's photographs. A page's files have their own.
)
"""Headers of every answer that has not its own, as ASGI takes them."""

log: structlog.typing.FilteringBoundLogger = structlog.get_logger()


class Recorder:
    """Counter and log of answered requests."""

    def __init__(self, metrics: Metrics, *, access_log: bool) -> None:
        self.metrics = metrics
        self._access_log = access_log

    def record(
        self, record: RequestRecord, *, method: str, path: str, route: str, status: int, duration_s: float
    ) -> None:
        """Count and log one request.

        Args:
            record: Facts about it.
            method: As the client wrote it, of any length.
            path: The same. It is for the log.
            route: The path's template, or "unmatched". It is for the metrics, whose labels must stay few.
            status: Of the answer. 0 means that there was none.
            duration_s: From the request's head to the end of the answer, in seconds.
        """
        self.metrics.observe_request(method if method in _METHODS else "other", route, status, duration_s)
        for problem in record.problems:
            self.metrics.problems.labels(problem).inc()
        for prediction in record.predictions if status == 200 else ():
            self.metrics.observe_prediction(prediction.best, prediction.classified.timings)
        if self._access_log:
            log.info(
                "request",
                request_id=record.request_id,
                method=method[:20],
                path=path[:_MAX_PATH_LENGTH],
                status=status,
                duration_ms=round(duration_s * 1000, 2),
                **({"model_version": record.rows[0].version.version} if record.rows else {}),
                **({"traceparent": record.traceparent} if record.traceparent else {}),
                **record.batch_fields,
                **{f"{stage}_ms": duration for stage, duration in record.durations_ms.items()},
            )


class Telemetry:
    """ASGI layer around the app. It never buffers a body.

    It answers an error that no handler knows. It answers HEAD as GET without the body. A path with a slash at its end
    is the path without it.
    """

    def __init__(self, app: ASGIApp, *, recorder: Recorder, protocols: Protocols, tracing: Tracing | None) -> None:
        self._app = app
        self._tracing = tracing
        self._protocols = protocols
        self._recorder = recorder

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, and watch its answer."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started_at = time.perf_counter()
        method = scope["method"]
        is_head = method == "HEAD"
        path = scope["path"]
        if is_head or (path.endswith("/") and path != "/"):
            scope = {**scope, "method": "GET" if is_head else method, "path": path.removesuffix("/") or "/"}
        record = RequestRecord(take_request_id(scope["headers"]))
        record.has_plain_errors = self._protocols.has_path(scope["path"])
        scope.setdefault("state", {})["record"] = record
        if self._tracing is not None:
            record.traceparent = find_traceparent()
        status = 0

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = list(message.get("headers", ()))
                names = {name for name, _ in headers}
                headers.append((b"x-request-id", record.request_id.encode()))
                headers.extend(header for header in SECURITY_HEADERS if header[0] not in names)
                message["headers"] = headers
                if self._tracing is not None:
                    self._tracing.describe(record, method, _find_template(scope))
            elif is_head:
                message = {**message, "body": b""}
            await send(message)

        with self._recorder.metrics.in_flight.track_inprogress():
            try:
                await self._app(scope, receive, send_with_headers)
            except Exception as error:
                response = error_response(scope, error)
                if status:
                    raise  # half an answer is out: only cutting the connection tells the client
                await response(scope, receive, send_with_headers)
            finally:
                self._recorder.record(
                    record,
                    method=method,
                    path=scope["path"],
                    route=_find_template(scope),
                    status=status,
                    duration_s=time.perf_counter() - started_at,
                )


def _find_template(scope: Scope) -> str:
    """Return the path of the route that took the request. FastAPI's routes name themselves, Starlette's do not."""
    route, endpoint = scope.get("route"), scope.get("endpoint")
    if route is None and endpoint is not None:
        routes = [route for route in scope["app"].routes if getattr(route, "endpoint", None) is endpoint]
        route = next((route for route in routes if route.path == scope["path"]), routes[0])
    return getattr(route, "path", "unmatched")
