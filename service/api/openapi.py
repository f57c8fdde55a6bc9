"""OpenAPI document: the plain route, the served model, the address and the keys."""

from functools import cache
from typing import Any

from fastapi import FastAPI
from pydantic import TypeAdapter

from service.api import problems
from service.api.access import document_keys
from service.api.bodies import FIELD
from service.api.parameters import MAX_TOP_K, TIMEOUT_HEADER, TOP_K
from service.api.routes.predict import PATH
from service.api.schemas import PredictionBody

_DESCRIPTION = """
Scores for photographs, by the model `{model}`.

    curl -F file=@photo.jpg localhost:8000/predict

Every answer has an `X-Request-ID`. Every problem is answered as `application/problem+json` (RFC 9457). Its `type` names
the kind for programs. Its `detail` tells people what to do.
"""
_HERE = {"url": ".", "description": "This service, behind any prefix of a proxy."}
_SCHEMAS = "#/components/schemas/"
_TOP_K = {"type": "integer", "minimum": 1, "maximum": MAX_TOP_K}
_BINARY = {"schema": {"type": "string", "contentMediaType": "application/octet-stream"}}


def describe(app: FastAPI, model: str, open_paths: frozenset[str] | None) -> None:
    """Make `app.openapi` describe a service of one model.

    Args:
        app: Its routes are there when its document is asked for.
        model: Name of the model that is served.
        open_paths: Paths that want no API key. None means that no path wants one.
    """
    app.title = f"{model} - image classification"
    app.description = _DESCRIPTION.format(model=model)
    app.servers = [dict(_HERE)]
    write_document = app.openapi

    @cache
    def openapi() -> dict[str, Any]:
        document = write_document()
        schema = TypeAdapter(PredictionBody).json_schema(ref_template=f"{_SCHEMAS}{{model}}", mode="serialization")
        schema["example"]["model"]["name"] = model
        parts = schema.pop("$defs")
        document["components"]["schemas"].update(parts, PredictionBody=schema)
        document["paths"] = {PATH: {"post": _describe_predict()}, **document["paths"]}
        if open_paths is not None:
            document_keys(document, open_paths)
        return document

    app.openapi = openapi  # type: ignore[method-assign]


def _describe_predict() -> dict[str, Any]:
    """Return the operation of the plain route. FastAPI describes only its own."""
    fields = {
        FIELD: {"type": "string", "format": "binary", "description": "The image."},
        TOP_K: {**_TOP_K, "description": "Number of scores, instead of the parameter of that name."},
    }
    timing = {"schema": {"type": "string", "examples": ["decode;dur=3.1, infer;dur=9.8"]}}
    return {
        "tags": ["predict"],
        "summary": "Classify one image",
        "description": (
            "Send the image as form field `file`, or as the whole body (`image/*`, `application/octet-stream`).\n\n"
            "`top_k` may be a field of the form. It must not contradict the one of the query.\n\n"
            "`X-Request-ID` is taken over when it has 1 to 128 printable ASCII characters without spaces."
        ),
        "operationId": "predict_predict_post",
        "parameters": [
            _describe_parameter(TOP_K, "query", "Top K", _TOP_K, "Number of scores. The default is all classes."),
            _describe_parameter(
                TIMEOUT_HEADER,
                "header",
                "X-Request-Timeout-Ms",
                {"type": "integer", "minimum": 1},
                "The client's timeout in milliseconds, upload included. The server has a limit of its own.",
            ),
        ],
        "requestBody": {
            "required": True,
            "description": "A JPEG, PNG, WebP, GIF, BMP, TIFF or AVIF image. Its content decides, not its name.",
            "content": {
                "multipart/form-data": {"schema": {"type": "object", "required": [FIELD], "properties": fields}},
                "image/*": _BINARY,
                "application/octet-stream": _BINARY,
            },
        },
        "responses": {
            200: {
                "description": "Successful Response",
                "content": {"application/json": {"schema": {"$ref": f"{_SCHEMAS}{PredictionBody.__name__}"}}},
                "headers": {"Server-Timing": timing},
            },
            **problems.document(*problems.PREDICTION_ERRORS),
        },
    }


def _describe_parameter(name: str, place: str, title: str, schema: dict[str, Any], description: str) -> dict[str, Any]:
    optional = {"anyOf": [schema, {"type": "null"}], "description": description, "title": title}
    return {"name": name, "in": place, "required": False, "schema": optional, "description": description}
