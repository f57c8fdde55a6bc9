"""OpenAPI document of the Open Inference Protocol and of TensorFlow Serving's REST."""

import re
from collections.abc import Sequence
from typing import Any

from service import errors
from service.api import problems
from service.api.protocols import open_inference, tensorflow_serving
from service.api.protocols.served_model import NAME, VERSION
from service.api.protocols.tensor_schemas import (
    INFER,
    INFERRED,
    LIVE,
    METADATA,
    MODEL_METADATA,
    MODEL_READY,
    PREDICT,
    PREDICTED,
    READY,
    SERVER_METADATA,
    STATUS,
)
from service.api.request_bodies import BINARY

_READINESS = (errors.NotReady, errors.Draining)
_OF_MODEL = (errors.ModelNotFound, errors.VersionNotFound)
_NUM_JSON_BYTES = {
    "schema": {"type": "integer", "minimum": 1},
    "description": "Length of the JSON in bytes, where binary data follow it.",
}
_LENGTH = {"name": open_inference.LENGTH_HEADER, "in": "header", "required": False, **_NUM_JSON_BYTES}
_FORMS: dict[str, tuple[str, dict[str, Any], Sequence[type[Exception]]]] = {
    "v2": ("server", SERVER_METADATA, ()),
    "v2/live": ("live", LIVE, ()),
    "v2/ready": ("ready", READY, _READINESS),
    "v2/model": ("model", MODEL_METADATA, (*_OF_MODEL, errors.NotReady)),
    "v2/model/ready": ("model ready", MODEL_READY, (*_OF_MODEL, *_READINESS)),
    "v2/model/infer": ("infer", INFERRED, (*_OF_MODEL, *problems.PREDICTION_ERRORS)),
    "v1/model": ("model", STATUS, (*_OF_MODEL, *_READINESS)),
    "v1/model/metadata": ("metadata", METADATA, (*_OF_MODEL, errors.NotReady)),
    "v1/model/predict": ("predict", PREDICTED, (*_OF_MODEL, *problems.PREDICTION_ERRORS)),
}


def is_tensor_path(path: str) -> bool:
    """Return whether the template of a route belongs to one of the two protocols."""
    return path.startswith((f"{open_inference.PATH}/", f"{tensorflow_serving.PATH}/")) or path == open_inference.PATH


def describe_tensors(path: str, method: str, model: str) -> tuple[dict[str, Any], Sequence[type[Exception]]]:
    """Describe a route, and return the errors that it can meet.

    Args:
        path: Its template.
        method: Its method in lower case.
        model: Name of the model that is served.
    """
    is_open_inference = path.startswith(open_inference.PATH)
    protocol = "Open Inference Protocol" if is_open_inference else "TensorFlow Serving"
    form = re.sub(r"/models/{\w+}(/versions/{\w+})?", "/model", path).replace(":", "/").replace("/health", "")
    name, answer, refusals = _FORMS[form.lstrip("/")]
    of_version = " of a version" if f"{{{VERSION}}}" in path else ""
    operation: dict[str, Any] = {
        "summary": f"{protocol}: {name}{of_version}",
        "parameters": [_describe_parameter(name, model) for name in re.findall(r"{(\w+)}", path)],
        "responses": {"200": describe_answer(answer)},
    }
    if method == "post":
        content = {"application/json": {"schema": INFER if is_open_inference else PREDICT}}
        operation["requestBody"] = {"required": True, "content": content}
        if is_open_inference:
            content["application/octet-stream"] = BINARY
            operation["requestBody"]["description"] = "JSON, or JSON with binary data behind it."
            operation["parameters"].append(_LENGTH)
            answered = operation["responses"]["200"]
            answered["content"]["application/octet-stream"] = BINARY
            answered["headers"] = {open_inference.LENGTH_HEADER: _NUM_JSON_BYTES}
    return operation, refusals


def describe_answer(schema: dict[str, Any]) -> dict[str, Any]:
    """Return the response of an answer in JSON."""
    return {"description": "Successful answer", "content": {"application/json": {"schema": schema}}}


def _describe_parameter(name: str, model: str) -> dict[str, Any]:
    example, description = {
        NAME: (model, "Name of the served model. Another one is 404."),
        VERSION: ("1", "Number of the live version. Another one is 404."),
    }[name]
    return {
        "name": name,
        "in": "path",
        "required": True,
        "schema": {"type": "string", "examples": [example]},
        "description": description,
    }
