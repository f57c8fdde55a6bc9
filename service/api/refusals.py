"""Answers without the app: to requests that cannot be read, and to predictions that the queue has no room for."""

import time
from functools import lru_cache
from http import HTTPStatus
from json.encoder import encode_basestring_ascii

import structlog
from starlette.datastructures import Headers

from service import errors
from service.api import problems
from service.api.record import RequestRecord, take_request_id
from service.api.routes import batch, predict
from service.api.service import Service
from service.api.telemetry import SECURITY_HEADERS
from service.wire.heads import Fields

_PATHS = {f"{path}{end}".encode(): path for path in (predict.PATH, batch.PATH) for end in ("", "/")}
_ID = b'"\\u0000"'  # stands for the request id. No text of ours has it.

log: structlog.typing.FilteringBoundLogger = structlog.get_logger()


class Refusals:
    """The service as the wire sees it. It makes, counts and logs early refusals.

    At five times the load of a replica, four of five requests are refused. Their way through the app would take the
    time of predictions.
    """

    def __init__(self, service: Service) -> None:
        self._service = service

    def is_draining(self) -> bool:
        """Return whether the service is shutting down."""
        return self._service.health.is_draining

    def refuse(self, error: errors.FlowersError, fields: Fields) -> bytes:
        """Return the answer to a request that cannot be read. One of its fields may be its id."""
        problem, request_id = problems.find(type(error)), take_request_id(fields)
        metrics = self._service.metrics
        metrics.requests.labels("other", "unmatched", str(problem.status)).inc()
        metrics.problems.labels(problem.name).inc()
        log.info("request refused", request_id=request_id, problem=problem.name)
        return _make_answer(problem, str(error), request_id)

    def admit(self, method: str, target: bytes, fields: Fields) -> bytes | None:
        """Return the refusal of a prediction that the queue has no room for, or None.

        An admitted prediction is expected in the event loop's next turn. The app refuses special requests: those of a
        browser from another origin, and those without a key.
        """
        raw_path = target.partition(b"?")[0]
        path = _PATHS.get(raw_path) or self._find_protocol(raw_path)
        if method != "POST" or path is None or any(name == b"origin" for name, _ in fields):
            return None
        try:
            self._service.admission.expect()
        except errors.QueueFull as error:
            keys = self._service.api_keys
            if keys is None or keys.are_in(Headers(raw=list(fields))):
                return self._turn_away(path, error, fields)
        return None

    def _find_protocol(self, raw_path: bytes) -> str | None:
        path = raw_path.decode("latin-1")
        return self._service.protocols.find_prediction(path.removesuffix("/"))

    def _turn_away(self, path: str, error: errors.QueueFull, fields: Fields) -> bytes:
        started_at = time.perf_counter()
        problem = problems.find(type(error))
        record = RequestRecord(take_request_id(fields), [problem.name])
        is_plain = self._service.protocols.has_path(path)
        answer = _make_answer(problem, str(error), record.request_id, is_plain=is_plain)
        duration_s = time.perf_counter() - started_at
        self._service.recorder.record(
            record, method="POST", path=path, route=path, status=problem.status, duration_s=duration_s
        )
        return answer


def _make_answer(problem: problems.Problem, detail: str, request_id: str, *, is_plain: bool = False) -> bytes:
    head, body = _prepare(problem, detail, is_plain)
    body = body.replace(_ID, encode_basestring_ascii(request_id).encode(), 1)
    own = b"X-Request-ID: %b\r\nContent-Length: %d\r\n\r\n" % (request_id.encode(), len(body))
    return head + own + body


@lru_cache(maxsize=256)  # nearly all are of one kind, and differ in the number of waiting images
def _prepare(problem: problems.Problem, detail: str, is_plain: bool) -> tuple[bytes, bytes]:
    """Return status line and headers, and the body with `_ID` in it. A plain body has no id."""
    response = problems.problem_response("\0", problem, detail, is_plain=is_plain)
    headers = [*SECURITY_HEADERS, *response.raw_headers]
    lines = [b"%b: %b\r\n" % header for header in headers if header[0] != b"content-length"]
    status_line = f"HTTP/1.1 {problem.status} {HTTPStatus(problem.status).phrase}\r\n".encode()
    return b"".join([status_line, *lines]), bytes(response.body)
