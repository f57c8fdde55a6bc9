"""`POST /predict`: one image in, its scores out."""

import asyncio
import difflib
from collections.abc import Sequence
from typing import Annotated, Any
from urllib.parse import parse_qsl

from fastapi import APIRouter, Header, Query
from fastapi.routing import APIRoute
from pydantic import Field, TypeAdapter, ValidationError
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from service import errors
from service.api import problems
from service.api.hang_up import unless_hung_up
from service.api.schemas import LabelProbability, ModelVersion, PredictionBody
from service.api.service import request_id_of, service_of
from service.api.upload import FIELD, read_image
from service.inference.predictor import Classified, Timings
from service.ranking import Ranking, check_top_k, rank

PATH = "/predict"
_to_json = TypeAdapter(PredictionBody).dump_json
_MOST_SCORES = 100_000
_to_top_k = TypeAdapter(Annotated[int, Field(ge=1, le=_MOST_SCORES)]).validate_python
_LONGEST_MS = 10**9  # a number that a float holds; no server allows as much


class _DirectRoute(APIRoute):
    """Asks FastAPI only where there is a parameter to look at; a request without any goes straight to its handler.

    FastAPI's own way to a handler takes more of the event loop's time than reading the body does.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        asks_for = self.dependant
        if asks_for.path_params or asks_for.cookie_params or asks_for.body_params or asks_for.dependencies:
            raise TypeError(f"{self.path} has other parameters than query and headers: it needs an ordinary route")
        self._headers = {field.alias.encode() for field in asks_for.header_params}
        self._names = [field.alias for field in asks_for.query_params]

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request whose path is this one."""
        has_parameters = scope["query_string"] or any(name in self._headers for name, _ in scope["headers"])
        if has_parameters or scope["method"] not in (self.methods or ()):
            if scope["method"] in (self.methods or ()):
                self._check_names(scope["query_string"])
            await super().handle(scope, receive, send)
            return
        response: Response = await self.endpoint(Request(scope, receive, send))
        await response(scope, receive, send)

    def _check_names(self, query: bytes) -> None:
        """Refuse a parameter that the path does not have, or one with two values.

        Raises:
            InvalidParameter: Names the parameter, and the nearest one there is.
        """
        given: dict[str, str] = {}
        for name, value in parse_qsl(query.decode("latin-1"), keep_blank_values=True):
            if name not in self._names:
                (nearest,) = difflib.get_close_matches(name.lower(), self._names, n=1, cutoff=0)
                raise errors.InvalidParameter(
                    f"{name[:40]!r} is no parameter of {self.path}. The nearest is {nearest!r}: write that, or leave "
                    "it out."
                )
            if given.setdefault(name, value) != value:
                raise _contradiction(name, [given[name], value])


router = APIRouter(tags=["predict"], route_class=_DirectRoute)

_BINARY = {"schema": {"type": "string", "contentMediaType": "application/octet-stream"}}
_REQUEST_BODY: dict[str, Any] = {
    "required": True,
    "description": "A JPEG, PNG, WebP, GIF, BMP, TIFF or AVIF image. What it is is decided by its content.",
    "content": {
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "required": [FIELD],
                "properties": {
                    FIELD: {"type": "string", "format": "binary", "description": "The photograph."},
                    "top_k": {
                        "type": "integer",
                        "minimum": 1,
                        "maximum": _MOST_SCORES,
                        "description": "How many scores, instead of the parameter of that name.",
                    },
                },
            }
        },
        "image/*": _BINARY,
        "application/octet-stream": _BINARY,
    },
}


@router.post(
    PATH,
    summary="Classify one image",
    response_model=PredictionBody,
    responses={
        200: {
            "headers": {"Server-Timing": {"schema": {"type": "string", "examples": ["decode;dur=3.1, infer;dur=9.8"]}}}
        },
        **problems.document(
            errors.MalformedRequest,
            errors.MissingImage,
            errors.Unauthorized,
            errors.BodyTooSlow,
            errors.ImageBytesTooLarge,
            errors.ImageTooLarge,
            errors.TooManyImages,
            errors.UnsupportedImageFormat,
            errors.UnsupportedMediaType,
            errors.UnsupportedEncoding,
            errors.InvalidImage,
            errors.InvalidParameter,
            errors.QueueFull,
            errors.NotReady,
            errors.OutOfMemory,
            errors.Draining,
            errors.DeadlineExceeded,
        ),
    },
    openapi_extra={"requestBody": _REQUEST_BODY},
)
async def predict(
    request: Request,
    top_k: Annotated[
        int | None, Query(ge=1, le=_MOST_SCORES, description="How many scores; default: all classes.")
    ] = None,
    x_request_timeout_ms: Annotated[
        int | None,
        Header(
            ge=1,
            description="Milliseconds that the answer is worth waiting for, the upload included; the server has a cap.",
        ),
    ] = None,
) -> Response:
    """Send the image as form field `file`, or as the whole body (`image/*`, `application/octet-stream`).

    `top_k` may be a field of the form. It must not contradict the one of the query.

    `X-Request-ID` is taken over when it has 1 to 128 printable ASCII characters without spaces.
    """
    service = service_of(request)
    clock = asyncio.get_running_loop().time
    gives_up_at = None if x_request_timeout_ms is None else clock() + min(x_request_timeout_ms, _LONGEST_MS) / 1000
    with service.admission.request() as ticket:
        num_classes = len(service.predictor.require().metadata.class_names)
        check_top_k(top_k, num_classes)
        try:
            async with asyncio.timeout_at(gives_up_at):
                upload = await read_image(
                    request,
                    max_image_bytes=service.max_image_bytes,
                    body_timeout_s=service.body_timeout_s,
                    hold=ticket.add_bytes,
                    is_busy=service.admission.is_busy,
                    joiner=service.joiner,
                )
        except TimeoutError:
            raise errors.DeadlineExceeded("The deadline passed while the body arrived: allow more time.") from None
        if upload.parameters:
            top_k = _join_top_k(top_k, upload.parameters.get("top_k", ()))
            check_top_k(top_k, num_classes)
        # The server's own limit counts from the end of the upload, which has a limit of its own.
        deadline = clock() + service.request_timeout_s
        if gives_up_at is not None:
            deadline = min(deadline, gives_up_at)
        work = service.predictor.classify(upload.image, ticket, deadline)
        del upload  # the predictor lets go of it as soon as it is decoded
        classified = await unless_hung_up(request, work)
    metadata = classified.version.metadata
    ranking = rank(classified.probabilities, metadata.class_names, top_k, metadata.confidence_threshold)
    durations_ms = _milliseconds(classified.timings)
    answer = _answer(request_id_of(request), classified, ranking, durations_ms)
    request.state.prediction = ranking.scores[0], classified.timings
    request.state.log = {"model_version": classified.version.version, **durations_ms}
    return answer


def _join_top_k(of_query: int | None, of_form: Sequence[str]) -> int | None:
    """Return the one `top_k` of the query and the form's fields.

    Raises:
        InvalidParameter: One is no number in range, or two of them differ.
    """
    top_k = of_query
    for text in of_form:
        try:
            value = _to_top_k(text)
        except ValidationError as error:
            reason = error.errors(include_url=False)[0]["msg"].lower()
            raise errors.InvalidParameter(f"top_k is {text[:40]!r}: {reason}.") from None
        if top_k not in (None, value):
            raise _contradiction("top_k", [str(top_k), text])
        top_k = value
    return top_k


def _contradiction(name: str, values: Sequence[str]) -> errors.InvalidParameter:
    shown = " and ".join(repr(value[:40]) for value in values)
    return errors.InvalidParameter(f"{name} is given twice, as {shown}: give it once.")


def _answer(request_id: str, classified: Classified, ranking: Ranking, durations_ms: dict[str, float]) -> Response:
    best = ranking.scores[0]
    body = PredictionBody(
        request_id=request_id,
        model=ModelVersion(name=classified.version.model, version=classified.version.version),
        label=best.label,
        probability=best.probability,
        confident=ranking.confident,
        predictions=[LabelProbability(score.label, score.probability) for score in ranking.scores],
    )
    timing = ", ".join(f"{stage.removesuffix('_ms')};dur={duration}" for stage, duration in durations_ms.items())
    return Response(_to_json(body), media_type="application/json", headers={"Server-Timing": timing})


def _milliseconds(timings: Timings) -> dict[str, float]:
    return {
        "decode_ms": round(timings.decode_s * 1000, 2),
        "queue_ms": round(timings.queue_s * 1000, 2),
        "infer_ms": round(timings.infer_s * 1000, 2),
    }
