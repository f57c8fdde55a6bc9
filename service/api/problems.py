"""Exception -> `application/problem+json` (RFC 9457). The one table that knows statuses."""

from dataclasses import dataclass
from typing import Any

import structlog
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Scope

from service import errors
from service.api.schemas import ProblemDetails, json_schema_ref
from service.errors import is_out_of_memory

MEDIA_TYPE = "application/problem+json"
STATUS_HUNG_UP = 499
"""For the log and the metrics only: the sender is gone, nobody reads it (nginx's number)."""

_NO_MEMORY = "The server has too little memory for this request now. Send it again after the seconds in Retry-After."

log: structlog.typing.FilteringBoundLogger = structlog.get_logger()


@dataclass(frozen=True)
class Problem:
    """A kind of problem. `meaning` explains it to people at `GET /problems/<name>` and in OpenAPI."""

    status: int
    name: str
    meaning: str
    retry_after_s: int | None = None

    @property
    def title(self) -> str:
        """The name in words."""
        return self.name.replace("-", " ").capitalize()

    @property
    def type(self) -> str:
        """The identifier in the body, and the path that explains it."""
        return f"/problems/{self.name}"


NOT_FOUND = Problem(
    404, "not-found", "No such path, model or version: GET /docs lists the paths, GET /models the models."
)
METHOD_NOT_ALLOWED = Problem(
    405, "method-not-allowed", "The path is right, the method is not: the header Allow names those."
)
HEAD_TOO_LARGE = Problem(
    431,
    "head-too-large",
    "Request line and headers, or the trailers, have more than 32 KiB: send fewer or shorter ones.",
)
INTERNAL_ERROR = Problem(
    500,
    "internal-error",
    "The fault is the service's. Send it again; if it stays, give the request id to whoever runs the "
    "service: the log has the cause.",
)

_PROBLEMS: dict[type[Exception], Problem] = {
    errors.MalformedRequest: Problem(
        400,
        "malformed-request",
        "The request or its multipart body cannot be parsed, or is cut short, or there is not one Host header.",
    ),
    errors.HeadTooLarge: HEAD_TOO_LARGE,
    errors.MissingImage: Problem(400, "missing-image", "The body is empty, or the form has no part named `file`."),
    errors.ModelNotFound: NOT_FOUND,
    errors.VersionNotFound: NOT_FOUND,
    errors.Unauthorized: Problem(
        401,
        "unauthorized",
        "This service wants an API key (Authorization: Bearer, or X-API-Key), and no valid one was sent.",
    ),
    errors.BodyTooSlow: Problem(
        408,
        "body-too-slow",
        "The body did not arrive within body_timeout_s (a setting of the server), or the head not within 10 s.",
    ),
    errors.ImageBytesTooLarge: Problem(
        413, "body-too-large", "More bytes than max_image_bytes (a setting of the server)."
    ),
    errors.ImageTooLarge: Problem(
        413,
        "image-too-large",
        "It has more pixels to decode than max_image_pixels (a setting), or a JPEG of over 200 million.",
    ),
    errors.TooManyImages: Problem(
        413, "too-many-images", "More images than one request may carry; /predict takes one."
    ),
    errors.UnsupportedImageFormat: Problem(
        415, "unsupported-image-format", "The bytes are none of the accepted image formats."
    ),
    errors.UnsupportedMediaType: Problem(
        415,
        "unsupported-media-type",
        "The body is neither multipart/form-data, nor image/*, nor application/octet-stream.",
    ),
    errors.UnsupportedEncoding: Problem(
        415, "unsupported-encoding", "The request has a Content-Encoding; none is accepted."
    ),
    errors.InvalidImage: Problem(422, "invalid-image", "It begins like an image, but is broken, cut short or hostile."),
    errors.InvalidParameter: Problem(
        422, "invalid-parameter", "A parameter of the request is out of range, unknown or given twice."
    ),
    errors.OutOfMemory: Problem(
        503, "overloaded", "The server has too little memory for this now: wait, and send it again.", 1
    ),
    # After the other of this name: it is the one that `PROBLEMS` holds.
    errors.QueueFull: Problem(
        429,
        "overloaded",
        "As many images or bytes wait as may (max_queue_size, max_queue_bytes), or no process can be had for a picture "
        "that needs one: wait, and send it again. For want of memory the status is 503.",
        1,
    ),
    errors.NotReady: Problem(503, "not-ready", "No verified, warmed-up model can answer; it says why.", 5),
    errors.Draining: Problem(
        503, "draining", "This replica is shutting down; another one, or this one restarted, will answer.", 5
    ),
    errors.DeadlineExceeded: Problem(
        504,
        "deadline-exceeded",
        "X-Request-Timeout-Ms, or the server's own request_timeout_s, passed before the answer was there.",
    ),
}

PROBLEMS = {problem.name: problem for problem in (*_PROBLEMS.values(), METHOD_NOT_ALLOWED, INTERNAL_ERROR)}
"""Every kind by its name."""


def add_handlers(app: FastAPI) -> None:
    """Answer every exception that reaches `app` as a problem."""
    app.add_exception_handler(errors.FlowersError, _answer_error)
    app.add_exception_handler(RequestValidationError, _answer_validation_error)
    app.add_exception_handler(HTTPException, _answer_http_exception)
    app.add_exception_handler(ClientDisconnect, _answer_nobody)


def problem_response(request_id: str, problem: Problem, detail: str, headers: dict[str, str] | None = None) -> Response:
    """The body and the headers of one problem; `detail` is for this occurrence."""
    if problem.retry_after_s is not None:
        headers = {"Retry-After": str(problem.retry_after_s), **(headers or {})}
    body = ProblemDetails(
        type=problem.type, title=problem.title, status=problem.status, detail=detail, request_id=request_id
    )
    return Response(body.model_dump_json(), problem.status, headers, MEDIA_TYPE)


def error_response(scope: Scope, error: errors.FlowersError, headers: dict[str, str] | None = None) -> Response:
    """The answer to an error of a layer around the router; for its handlers, raising is enough."""
    return _respond(Request(scope), _find(error) or INTERNAL_ERROR, str(error), headers)


def unexpected_error(scope: Scope, error: Exception) -> Response:
    """Log an error that no handler knows. It is a 500 without a word about the cause, or a 503 for want of memory."""
    request = Request(scope)
    if is_out_of_memory(error):
        # Without the stack: there may be many, and each would take memory, too.
        log.warning("out of memory", request_id=request.state.request_id, reason=repr(error))
        return _respond(request, _PROBLEMS[errors.OutOfMemory], _NO_MEMORY)
    log.error("request failed", request_id=request.state.request_id, exc_info=error)
    detail = f"The service failed to answer; its log has the cause under request id {request.state.request_id}."
    return _respond(request, INTERNAL_ERROR, detail)


def document(*exceptions: type[Exception]) -> dict[int | str, dict[str, Any]]:
    """The `responses` of a route for OpenAPI: these problems and the 500, by status, each with an example."""
    problems = dict.fromkeys([*(_PROBLEMS[exception] for exception in exceptions), INTERNAL_ERROR])
    responses: dict[int | str, dict[str, Any]] = {}
    for status in sorted({problem.status for problem in problems}):
        responses[status] = _document([problem for problem in problems if problem.status == status])
    responses["default"] = {**_document([METHOD_NOT_ALLOWED, HEAD_TOO_LARGE]), "description": "Any other problem"}
    return responses


def _document(problems: list[Problem]) -> dict[str, Any]:
    response: dict[str, Any] = {
        "description": "; ".join(problem.title for problem in problems),
        "content": {
            MEDIA_TYPE: {
                "schema": json_schema_ref(ProblemDetails),
                "examples": {problem.name: {"value": _example(problem)} for problem in problems},
            }
        },
    }
    if any(problem.retry_after_s for problem in problems):
        schema = {"type": "integer", "description": "Seconds to wait before sending it again."}
        response["headers"] = {"Retry-After": {"schema": schema}}
    return response


def explain(problem: Problem, request_id: str) -> ProblemDetails:
    """What `GET /problems/<name>` says."""
    return ProblemDetails(
        type=problem.type,
        title=problem.title,
        status=problem.status,
        detail=problem.meaning,
        request_id=request_id,
    )


def _example(problem: Problem) -> dict[str, Any]:
    return explain(problem, "0193a5d4-7f2c-7a51-8a5e-3f1b0c9d2e47").model_dump()


def of(kind: type[errors.FlowersError]) -> Problem:
    """The problem of an exception that is no exception here."""
    return _PROBLEMS[kind]


def _find(error: Exception) -> Problem | None:
    return next((_PROBLEMS[kind] for kind in type(error).__mro__ if kind in _PROBLEMS), None)


def _respond(request: Request, problem: Problem, detail: str, headers: dict[str, str] | None = None) -> Response:
    request.state.problem = problem.name
    return problem_response(request.state.request_id, problem, detail, headers)


async def _answer_error(request: Request, error: Exception) -> Response:
    problem = _find(error)
    if problem is None:
        return unexpected_error(request.scope, error)
    return _respond(request, problem, str(error))


async def _answer_validation_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    value = repr(first.get("input"))[:80]
    detail = f"{first['loc'][-1]} is {value}: {first['msg'].lower()}."
    return _respond(request, _PROBLEMS[errors.InvalidParameter], detail)


async def _answer_http_exception(request: Request, error: Exception) -> Response:
    """What the router itself refuses: an unknown path, a wrong method."""
    assert isinstance(error, HTTPException)
    if error.status_code == METHOD_NOT_ALLOWED.status:
        methods = {method for method in (error.headers or {}).get("Allow", "").split(", ") if method}
        allowed = ", ".join(sorted(methods | {"HEAD"} if "GET" in methods else methods))  # GET's answer HEAD, too
        detail = f"This path answers {allowed or 'other methods'} only."
        return _respond(request, METHOD_NOT_ALLOWED, detail, {"Allow": allowed})
    if error.status_code == NOT_FOUND.status:
        return _respond(request, NOT_FOUND, "Nothing is at this path: GET /docs lists the paths.")
    return _respond(request, _PROBLEMS[errors.MalformedRequest], "The request cannot be read: GET /docs describes it.")


async def _answer_nobody(request: Request, error: Exception) -> Response:  # noqa: ARG001
    return Response(status_code=STATUS_HUNG_UP)
