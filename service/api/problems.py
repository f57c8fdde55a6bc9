"""Exception -> `application/problem+json` (RFC 9457). This one table knows statuses."""

from dataclasses import dataclass
from typing import Any

import structlog
from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.types import Scope

from service import errors
from service.api.record import record_of
from service.api.schemas import ErrorBody, PlaceProblem, ProblemDetails

MEDIA_TYPE = "application/problem+json"

_NO_MEMORY = "The server has too little memory for this request now. Send it again after the seconds in Retry-After."
_EXAMPLE_ID = "0193a5d4-7f2c-7a51-8a5e-3f1b0c9d2e47"

log: structlog.typing.FilteringBoundLogger = structlog.get_logger()


@dataclass(frozen=True)
class Problem:
    """A kind of problem.

    Attributes:
        kind: The error that it answers. Its docstring says what it means. None for problems without an error of ours.
        status: HTTP status.
        name: Last part of its type.
        advice: What a client can do.
        retry_after_s: Seconds after which the same request may succeed.
    """

    kind: type[errors.FlowersError] | None
    status: int
    name: str
    advice: str
    retry_after_s: int | None = None

    @property
    def title(self) -> str:
        """The name in words."""
        return self.name.replace("-", " ").capitalize()

    @property
    def type(self) -> str:
        """The identifier in the body, and the path that explains it."""
        return f"/problems/{self.name}"

    def write(self, request_id: str, detail: str | None = None) -> ProblemDetails:
        """Return the body of an answer. `detail` is about this occurrence. None means the kind's explanation."""
        if detail is None:
            detail = " ".join(f"{(self.kind and self.kind.__doc__) or ''} {self.advice}".split())
        return ProblemDetails(
            type=self.type, title=self.title, status=self.status, detail=detail, request_id=request_id
        )


@dataclass(frozen=True)
class Occurrence:
    """One problem that was met, and the sentences about it."""

    problem: Problem
    detail: str

    def write(self) -> PlaceProblem:
        """Return it as the problem of one image of a batch."""
        problem = self.problem
        return PlaceProblem(type=problem.type, title=problem.title, status=problem.status, detail=self.detail)


NOT_FOUND = Problem(
    None, 404, "not-found", "No such path, model or version. See GET /docs for the paths, GET /models for the models."
)
METHOD_NOT_ALLOWED = Problem(
    None, 405, "method-not-allowed", "The path does not have this method. Use one that the header Allow lists."
)
HEAD_TOO_LARGE = Problem(errors.HeadTooLarge, 431, "head-too-large", "Send fewer or shorter fields.")
INTERNAL_ERROR = Problem(
    None, 500, "internal-error", "The service is at fault. Its log has the cause. Give the operator the request id."
)

_OF_PREDICTIONS = (
    Problem(errors.MalformedRequest, 400, "malformed-request", "Let a client library write it."),
    Problem(errors.MissingImage, 400, "missing-image", "Send it as the form's field `file`, or as the whole body."),
    Problem(errors.Unauthorized, 401, "unauthorized", "Send a key as Authorization: Bearer <key>, or as X-API-Key."),
    Problem(errors.BodyTooSlow, 408, "body-too-slow", "A head has 10 s. Send a smaller file, or use a faster network."),
    Problem(errors.ImageBytesTooLarge, 413, "body-too-large", "The limit is a setting. Send a smaller copy."),
    Problem(errors.ImageTooLarge, 413, "image-too-large", "A JPEG may announce 200 million. Send a smaller copy."),
    Problem(
        errors.TooManyImages,
        413,
        "too-many-images",
        "Send one to /predict, or fewer to /predict/batch.",
    ),
    Problem(errors.UnsupportedImageFormat, 415, "unsupported-image-format", "Send a format that GET /docs lists."),
    Problem(errors.UnsupportedMediaType, 415, "unsupported-media-type", "Send a media type that GET /docs lists."),
    Problem(errors.UnsupportedEncoding, 415, "unsupported-encoding", "Send the image file without one."),
    Problem(errors.InvalidImage, 422, "invalid-image", "Open it with another program, and save it again."),
    Problem(errors.InvalidParameter, 422, "invalid-parameter", "Or it is unknown, or given twice. See GET /docs."),
    Problem(errors.NotReady, 503, "not-ready", "GET /readyz says why. Send it again later.", 5),
    Problem(errors.OutOfMemory, 503, "overloaded", "Wait, and send it again.", 1),
    # `PROBLEMS` holds the last one of a name.
    Problem(errors.QueueFull, 429, "overloaded", "Without memory the status is 503. Wait, and send it again.", 1),
    Problem(errors.Draining, 503, "draining", "Another replica takes it. Send it again.", 5),
    Problem(errors.DeadlineExceeded, 504, "deadline-exceeded", "Allow more time in X-Request-Timeout-Ms."),
)
_OF_ALL = (*_OF_PREDICTIONS, NOT_FOUND, METHOD_NOT_ALLOWED, HEAD_TOO_LARGE, INTERNAL_ERROR)
_BY_KIND: dict[type[Exception], Problem] = {problem.kind: problem for problem in _OF_ALL if problem.kind}
_BY_KIND |= dict.fromkeys((errors.ModelNotFound, errors.VersionNotFound), NOT_FOUND)

_ERRORS_OF_WIRE = (errors.MalformedRequest, errors.BodyTooSlow, errors.HeadTooLarge, errors.OutOfMemory)
_HEADERS = {
    401: {"WWW-Authenticate": {"schema": {"type": "string"}, "description": "The scheme of the key."}},
    405: {"Allow": {"schema": {"type": "string"}, "description": "Methods of the path."}},
}

PREDICTION_ERRORS = tuple(problem.kind for problem in _OF_PREDICTIONS if problem.kind)
"""Errors that a prediction can meet."""

PROBLEMS = {problem.name: problem for problem in _OF_ALL}
"""Every kind by its name."""


def add_handlers(app: FastAPI) -> None:
    """Answer every exception that reaches `app` as a problem."""
    app.add_exception_handler(errors.FlowersError, _answer_error)
    app.add_exception_handler(HTTPException, _answer_http_exception)
    app.add_exception_handler(ClientDisconnect, _answer_hung_up)


def find(kind: type[Exception]) -> Problem:
    """Return the problem of an error's class, or of the nearest class above it. Any other error is a 500."""
    return next((_BY_KIND[ancestor] for ancestor in kind.__mro__ if ancestor in _BY_KIND), INTERNAL_ERROR)


def problem_response(
    request_id: str, problem: Problem, detail: str, headers: dict[str, str] | None = None, *, is_plain: bool = False
) -> Response:
    """Return the answer of one problem. `detail` is about this occurrence.

    A plain answer is `{"error": <detail>}`, as clients of other protocols read it.
    """
    if problem.retry_after_s is not None:
        headers = {"Retry-After": str(problem.retry_after_s), **(headers or {})}
    if is_plain:
        return JSONResponse({"error": detail}, problem.status, headers)
    return Response(problem.write(request_id, detail).model_dump_json(), problem.status, headers, MEDIA_TYPE)


def error_response(scope: Scope, error: Exception, headers: dict[str, str] | None = None) -> Response:
    """Return the answer to an error of a layer around the router. A handler inside only raises."""
    occurrence = describe(record_of(scope).request_id, error)
    return _respond(scope, occurrence.problem, occurrence.detail, headers)


def describe(request_id: str, error: Exception) -> Occurrence:
    """Return the problem of an error and its detail. An error that has no problem is logged, and its cause is hidden.

    Without memory it is a 503.
    """
    problem = find(type(error))
    if problem is not INTERNAL_ERROR:
        return Occurrence(problem, str(error))
    if errors.is_out_of_memory(error):
        # Without the stack. There may be many, and each would take memory, too.
        log.warning("memory exhausted", request_id=request_id, reason=repr(error))
        return Occurrence(_BY_KIND[errors.OutOfMemory], _NO_MEMORY)
    log.error("request failed", request_id=request_id, exc_info=error)
    detail = f"The service failed to answer. Its log has the cause. Give the operator the request id {request_id}."
    return Occurrence(INTERNAL_ERROR, detail)


def document(*kinds: type[Exception] | Problem, is_plain: bool = False) -> dict[int | str, dict[str, Any]]:
    """Return the `responses` of a route for OpenAPI: these problems and those of every route, by status, with examples.

    Args:
        kinds: Errors of the route itself, or their problems.
        is_plain: Whether it answers as clients of other protocols read it. A head that cannot be read is a problem in
            our form there, too.
    """
    found = [kind if isinstance(kind, Problem) else _BY_KIND[kind] for kind in (*kinds, *_ERRORS_OF_WIRE)]
    problems = dict.fromkeys([*found, METHOD_NOT_ALLOWED, INTERNAL_ERROR])
    responses: dict[int | str, dict[str, Any]] = {}
    for status in sorted({problem.status for problem in problems}):
        of_status = [problem for problem in problems if problem.status == status]
        responses[status] = _document(of_status, is_plain=is_plain)
    return responses


def _document(problems: list[Problem], *, is_plain: bool) -> dict[str, Any]:
    own = {problem.name: {"value": problem.write(_EXAMPLE_ID).model_dump()} for problem in problems}
    content = {MEDIA_TYPE: {"schema": _refer(ProblemDetails), "examples": own}}
    if is_plain:
        plain = {name: {"value": {"error": example["value"]["detail"]}} for name, example in own.items()}
        of_wire = {problem.name: own[problem.name] for problem in problems if problem.kind in _ERRORS_OF_WIRE}
        content = {"application/json": {"schema": _refer(ErrorBody), "examples": plain}}
        if of_wire:
            content[MEDIA_TYPE] = {"schema": _refer(ProblemDetails), "examples": of_wire}
    response: dict[str, Any] = {"description": "; ".join(problem.title for problem in problems), "content": content}
    headers = _HEADERS.get(problems[0].status, {})
    if any(problem.retry_after_s for problem in problems):
        schema = {"type": "integer", "description": "Seconds to wait before sending it again."}
        headers = {"Retry-After": {"schema": schema}}
    return {**response, "headers": headers} if headers else response


def _refer(body: type) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{body.__name__}"}


def _respond(scope: Scope, problem: Problem, detail: str, headers: dict[str, str] | None = None) -> Response:
    record = record_of(scope)
    record.problems = [problem.name]
    return problem_response(record.request_id, problem, detail, headers, is_plain=record.has_plain_errors)


async def _answer_error(request: Request, error: Exception) -> Response:
    return error_response(request.scope, error)


async def _answer_http_exception(request: Request, error: Exception) -> Response:
    """Answer what the router itself refuses: an unknown path, a wrong method."""
    assert isinstance(error, HTTPException)
    if error.status_code == METHOD_NOT_ALLOWED.status:
        methods = {method for method in (error.headers or {}).get("Allow", "").split(", ") if method}
        allowed = ", ".join(sorted(methods | {"HEAD"} if "GET" in methods else methods))  # GET's answer HEAD, too
        detail = f"This path answers {allowed or 'other methods'} only. Use one of them."
        return _respond(request.scope, METHOD_NOT_ALLOWED, detail, {"Allow": allowed})
    if error.status_code == NOT_FOUND.status:
        return _respond(request.scope, NOT_FOUND, "Nothing is at this path. See the paths at GET /docs.")
    detail = "The request cannot be read. See GET /docs for its form."
    return _respond(request.scope, _BY_KIND[errors.MalformedRequest], detail)


async def _answer_hung_up(request: Request, error: Exception) -> Response:  # noqa: ARG001
    return Response(status_code=499)  # nginx's number for a client that has left, for the log and the metrics
