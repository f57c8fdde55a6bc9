"""Answers that the app never makes: to requests that cannot be read, and to predictions without room."""

import time
from collections.abc import Sequence
from functools import lru_cache
from http import HTTPStatus
from json.encoder import encode_basestring_ascii

import structlog
from starlette.datastructures import Headers

from service import errors
from service.api import problems
from service.api.routes.predict import PATH
from service.api.service import Service
from service.api.telemetry import SECURITY_HEADERS, take_request_id

_PREDICT = (PATH.encode(), f"{PATH}/".encode())
_ID = b'"\\u0000"'  # where the request id comes; no text of ours has it

Fields = Sequence[tuple[bytes, bytes]]
"""Header fields in their order, names in lower case."""

log: structlog.typing.FilteringBoundLogger = structlog.get_logger()


class Refusals:
    """Makes, counts and logs the answers to requests that the app never hears of.

    At five times the load that a replica can take, four of five requests are refused. The way through the app would
    be lost to those that are computed.
    """

    def __init__(self, service: Service) -> None:
        self._service = service

    def refuse(self, kind: type[errors.FlowersError], detail: str, fields: Fields) -> bytes:
        """Return the answer to a request that cannot be read.

        Args:
            kind: What is wrong with it. Its status is that of `problems`.
            detail: For this occurrence.
            fields: The request's fields as far as they were read. One of them may be its id.

        Returns:
            A whole HTTP/1.1 answer.
        """
        problem = problems.of(kind)
        request_id = take_request_id(fields)
        metrics = self._service.metrics
        metrics.requests.labels("other", "unmatched", str(problem.status)).inc()
        metrics.problems[problem.name].inc()
        log.info("request refused", request_id=request_id, problem=problem.name)
        return _make_answer(problem, detail, request_id)

    def admit(self, method: str, target: bytes, fields: Fields) -> bytes | None:
        """Return the refusal of a prediction for which there is no room, or None.

        A prediction that is admitted is expected in the next turn of the event loop. The app refuses whatever is
        special: a browser's request from another origin, or one without a key.
        """
        if (
            method != "POST"
            or target.partition(b"?")[0] not in _PREDICT
            or any(name == b"origin" for name, _ in fields)
        ):
            return None
        try:
            self._service.admission.expect()
        except errors.QueueFull as error:
            return self._turn_away(error, fields) if self._has_key(fields) else None
        return None

    def _has_key(self, fields: Fields) -> bool:
        keys = self._service.api_keys
        return keys is None or keys.are_in(Headers(raw=list(fields)))

    def _turn_away(self, error: errors.QueueFull, fields: Fields) -> bytes:
        begun_at = time.perf_counter()
        problem, request_id = problems.of(type(error)), take_request_id(fields)
        answer = _make_answer(problem, str(error), request_id)
        duration_s = time.perf_counter() - begun_at
        self._service.recorder.record(request_id, "POST", PATH, PATH, problem.status, duration_s, problem.name)
        return answer


def _make_answer(problem: problems.Problem, detail: str, request_id: str) -> bytes:
    head, body = _prepare(problem, detail)
    body = body.replace(_ID, encode_basestring_ascii(request_id).encode(), 1)
    own = b"X-Request-ID: %b\r\nContent-Length: %d\r\n\r\n" % (request_id.encode(), len(body))
    return head + own + body


@lru_cache(maxsize=256)  # nearly all are of one kind, and differ in how many images wait
def _prepare(problem: problems.Problem, detail: str) -> tuple[bytes, bytes]:
    """Status line and headers, and the body with `_ID` in it. What depends on the request id is left out."""
    response = problems.problem_response("\0", problem, detail)
    headers = [*SECURITY_HEADERS, *response.raw_headers]
    lines = [b"%b: %b\r\n" % header for header in headers if header[0] != b"content-length"]
    status_line = f"HTTP/1.1 {problem.status} {HTTPStatus(problem.status).phrase}\r\n".encode()
    return b"".join([status_line, *lines]), bytes(response.body)
