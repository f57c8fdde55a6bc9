"""`POST /predict`: one image in, its scores out."""

import asyncio
from typing import Annotated, Any

from fastapi import APIRouter, Header, Query
from fastapi.routing import APIRoute
from pydantic import TypeAdapter
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from service import errors
from service.api import problems
from service.api.context import request_id_of, service_of
from service.api.hang_up import unless_hung_up
from service.api.schemas import LabelProbability, ModelVersion, PredictionBody
from service.api.upload import FIELD, read_image
from service.inference.predictor import Prediction, Timings

PATH = "/predict"
_to_json = TypeAdapter(PredictionBody).dump_json
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

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request whose path is this one."""
        has_parameters = scope["query_string"] or any(name in self._headers for name, _ in scope["headers"])
        if has_parameters or scope["method"] not in (self.methods or ()):
            await super().handle(scope, receive, send)
            return
        response: Response = await self.endpoint(Request(scope, receive, send))
        await response(scope, receive, send)


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
                "properties": {FIELD: {"type": "string", "format": "binary", "description": "The photograph."}},
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
    top_k: Annotated[int | None, Query(ge=1, le=100_000, description="How many scores; default: all classes.")] = None,
    x_request_timeout_ms: Annotated[
        int | None,
        Header(
            ge=1,
            description="Milliseconds that the answer is worth waiting for, the upload included; the server has a cap.",
        ),
    ] = None,
) -> Response:
    """Send the image as form field `file`, or as the whole body (`image/*`, `application/octet-stream`).

    `X-Request-ID` is taken over when it has 1 to 128 printable ASCII characters without spaces.
    """
    service = service_of(request)
    clock = asyncio.get_running_loop().time
    gives_up_at = None if x_request_timeout_ms is None else clock() + min(x_request_timeout_ms, _LONGEST_MS) / 1000
    with service.admission.request() as hold:
        service.predictor.check_top_k(top_k)
        try:
            async with asyncio.timeout_at(gives_up_at):
                data = await read_image(
                    request,
                    max_image_bytes=service.max_image_bytes,
                    body_timeout_s=service.body_timeout_s,
                    hold=hold,
                    is_busy=service.admission.is_busy,
                    joiner=service.joiner,
                )
        except TimeoutError:
            raise errors.DeadlineExceeded("The deadline passed while the body arrived: allow more time.") from None
        # The server's own limit counts from the end of the upload, which has a limit of its own.
        deadline = clock() + service.request_timeout_s
        if gives_up_at is not None:
            deadline = min(deadline, gives_up_at)
        work = service.predictor.predict(data, top_k=top_k, deadline=deadline)
        del data  # the predictor lets go of it as soon as it is decoded
        prediction = await unless_hung_up(request, work)
    durations_ms = _milliseconds(prediction.timings)
    answer = _answer(request_id_of(request), prediction, durations_ms)
    request.state.prediction = prediction
    request.state.log = {"model_version": prediction.version, **durations_ms}
    return answer


def _answer(request_id: str, prediction: Prediction, durations_ms: dict[str, float]) -> Response:
    best = prediction.scores[0]
    body = PredictionBody(
        request_id=request_id,
        model=ModelVersion(name=prediction.model, version=prediction.version),
        label=best.label,
        probability=best.probability,
        confident=prediction.confident,
        predictions=[LabelProbability(score.label, score.probability) for score in prediction.scores],
    )
    timing = ", ".join(f"{stage.removesuffix('_ms')};dur={duration}" for stage, duration in durations_ms.items())
    return Response(_to_json(body), media_type="application/json", headers={"Server-Timing": timing})


def _milliseconds(timings: Timings) -> dict[str, float]:
    return {
        "decode_ms": round(timings.decode_s * 1000, 2),
        "queue_ms": round(timings.queue_s * 1000, 2),
        "infer_ms": round(timings.infer_s * 1000, 2),
    }
