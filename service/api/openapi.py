"""OpenAPI document: the plain route, the served model, the address and the keys."""

from functools import cache
from typing import Annotated, Any

from fastapi import APIRouter, FastAPI, Header, Query
from fastapi.openapi.utils import get_openapi
from pydantic import TypeAdapter

from service.api import problems
from service.api.access import document_keys
from service.api.multipart import FIELD
from service.api.parameters import TOP_K, TimeoutMs, TopK
from service.api.routes import batch, explain
from service.api.routes.predict import PATH
from service.api.schemas import BatchBody, ExplanationBody, PredictionBody

_DESCRIPTION = """
Scores for photographs, by the model `{model}`.

    curl -F file=@photo.jpg localhost:8000/predict

Every answer has an `X-Request-ID`. Every problem is answered as `application/problem+json` (RFC 9457). Its `type` names
the kind for programs. Its `detail` tells people what to do.
"""
_HERE = {"url": ".", "description": "This service, behind any prefix of a proxy."}
_BINARY = {"schema": {"type": "string", "contentMediaType": "application/octet-stream"}}
_FIELDS = {
    FIELD: {"type": "string", "format": "binary", "description": "The image."},
    TOP_K: {
        **TypeAdapter(TopK).json_schema(),
        "description": "Number of scores, instead of the parameter of that name.",
    },
}
_BODY: dict[str, Any] = {
    "required": True,
    "description": "A JPEG, PNG, WebP, GIF, BMP, TIFF, AVIF or perhaps HEIC image. Its content decides, not its name.",
    "content": {
        "multipart/form-data": {"schema": {"type": "object", "required": [FIELD], "properties": _FIELDS}},
        "image/*": _BINARY,
        "application/octet-stream": _BINARY,
    },
}
_BATCH = {
    "required": True,
    "description": "A form with an image in each field `file`.",
    "content": {
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "required": [FIELD],
                "properties": {
                    **_FIELDS,
                    FIELD: {"type": "array", "items": {"type": "string", "format": "binary"}, "minItems": 1},
                },
            }
        }
    },
}
_TopKQuery = Annotated[TopK | None, Query(description="Number of scores. The default is all classes.")]
_TimeoutHeader = Annotated[
    TimeoutMs | None,
    Header(description="The client's timeout in milliseconds, upload included. The server has a limit of its own."),
]
_TIMING = {"Server-Timing": {"schema": {"type": "string", "examples": ["decode;dur=3.1, infer;dur=9.8"]}}}
_documented = APIRouter(tags=["predict"])

_EXPLAINED_FORM = {"schema": {"type": "object", "required": [FIELD], "properties": {FIELD: _FIELDS[FIELD]}}}
_EXPLAINED_BODY = {**_BODY, "content": {**_BODY["content"], "multipart/form-data": _EXPLAINED_FORM}}
_EXPLANATION_HEADERS = {
    **_TIMING,
    explain.LABEL_HEADER: {"schema": {"type": "string"}, "description": "The label, percent-encoded UTF-8."},
    explain.PROBABILITY_HEADER: {"schema": {"type": "number"}, "description": "Its probability for the whole image."},
}
_HEAT_MAP = {"schema": {"type": "string", "contentMediaType": "image/png"}}
_documented_explanation = APIRouter(tags=["predict"])


def describe(app: FastAPI, model: str, open_paths: frozenset[str] | None) -> None:
    """Make `app.openapi` describe a service of one model.

    Args:
        app: Its routes are there when its document is asked for.
        model: Name of the model that is served.
        open_paths: Paths that want no API key. None means that no path wants one.
    """
    app.title = f"{model} - image classification"
    explains = any(getattr(route, "path", "") == explain.PATH for route in app.routes)
    explanation = _documented_explanation if explains else APIRouter()

    @cache
    def openapi() -> dict[str, Any]:
        document = get_openapi(
            title=app.title,
            version=app.version,
            description=_DESCRIPTION.format(model=model),
            routes=[*_documented.routes, *explanation.routes, *app.routes],
            servers=[_HERE],
        )
        for body in (PredictionBody, BatchBody, *([ExplanationBody] if explanation.routes else [])):
            document["components"]["schemas"][body.__name__]["example"]["model"]["name"] = model
        if open_paths is not None:
            document_keys(document, open_paths)
        return document

    app.openapi = openapi  # type: ignore[method-assign]


@_documented.post(
    PATH,
    summary="Classify one image",
    response_model=PredictionBody,
    responses={200: {"headers": _TIMING}, **problems.document(*problems.PREDICTION_ERRORS)},
    openapi_extra={"requestBody": _BODY},
)
def predict(top_k: _TopKQuery = None, x_request_timeout_ms: _TimeoutHeader = None) -> None:
    """Send the image as form field `file`, or as the whole body (`image/*`, `application/octet-stream`).

    `top_k` may be a field of the form. It must not contradict the one of the query.

    `X-Request-ID` is taken over when it has 1 to 128 printable ASCII characters without spaces.
    """


@_documented.post(
    batch.PATH,
    summary="Classify many images",
    response_model=BatchBody,
    responses={200: {"headers": _TIMING}, **problems.document(*problems.PREDICTION_ERRORS)},
    openapi_extra={"requestBody": _BATCH},
)
def predict_batch(top_k: _TopKQuery = None, x_request_timeout_ms: _TimeoutHeader = None) -> None:
    """Send each image as a form field `file`. There is a result for each, in the order of the form.

    An image that cannot be answered has a problem in its place, and the status is 200 nevertheless. A problem of the
    whole request has its own status.

    `top_k` may be a field anywhere in the form.
    """


@_documented_explanation.post(
    explain.PATH,
    summary="Show what the score of a label rests on",
    response_model=ExplanationBody,
    responses={
        200: {"content": {"image/png": _HEAT_MAP}, "headers": _EXPLANATION_HEADERS},
        **problems.document(*problems.PREDICTION_ERRORS),
    },
    openapi_extra={"requestBody": _EXPLAINED_BODY},
)
def explain_image(
    label: Annotated[str | None, Query(description="Class to explain. The default is the most probable one.")] = None,
    x_request_timeout_ms: _TimeoutHeader = None,
) -> None:
    """Send the image as for `/predict`. The answer is a PNG, or JSON where `Accept` prefers it.

    Each cell of a grid of 7 x 7 over the square that the network sees is covered with the image's mean colour. The grid
    holds the drops of the label's probability. The PNG is that square, with the positive drops laid over it.
    """
