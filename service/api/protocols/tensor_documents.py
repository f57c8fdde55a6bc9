"""OpenAPI document of the Open Inference Protocol and of TensorFlow Serving's REST."""

import re
from typing import Any

from service.api.protocols import open_inference, tensorflow_serving
from service.api.protocols.served_model import NAME, VERSION

_PARAMETERS = {
    NAME: {"schema": {"type": "string"}, "description": "Name of the served model."},
    VERSION: {"schema": {"type": "string"}, "description": "Number of the live version. Another one is 404."},
}
_TENSOR = {
    "type": "object",
    "required": ["name", "shape", "datatype"],
    "properties": {
        "name": {"type": "string"},
        "datatype": {"type": "string"},
        "shape": {"type": "array", "items": {"type": "integer"}},
        "parameters": {"type": "object"},
        "data": {"type": "array", "items": {}},
    },
}
_INFER = {
    "type": "object",
    "required": ["inputs"],
    "properties": {
        "id": {"type": "string"},
        "inputs": {"type": "array", "minItems": 1, "maxItems": 1, "items": _TENSOR},
        "outputs": {"type": "array", "items": {"type": "object"}},
        "parameters": {"type": "object"},
    },
    "example": {
        "id": "7",
        "inputs": [{"name": "encoded", "datatype": "BYTES", "shape": [1], "data": ["/9j/4AAQSkZJRg..."]}],
        "outputs": [{"name": "probabilities", "parameters": {"classification": 2}}],
    },
}
_INFERRED = {
    "type": "object",
    "example": {
        "model_name": "flowers",
        "model_version": "3",
        "outputs": [
            {
                "name": "probabilities",
                "datatype": "BYTES",
                "shape": [1, 2],
                "data": ["0.941000:2:roses", "0.051000:4:tulips"],
            }
        ],
        "id": "7",
    },
}
_PREDICT = {
    "type": "object",
    "properties": {"instances": {"type": "array", "items": {}}, "inputs": {}, "signature_name": {"type": "string"}},
    "example": {"instances": [{"b64": "/9j/4AAQSkZJRg..."}]},
}
_PREDICTED = {"type": "object", "example": {"predictions": [[0.002, 0.003, 0.941, 0.003, 0.051]]}}
_OBJECT = {"type": "object"}


def is_tensor_path(path: str) -> bool:
    """Return whether the template of a route belongs to one of the two protocols."""
    return path.startswith((f"{open_inference.PATH}/", f"{tensorflow_serving.PATH}/")) or path == open_inference.PATH


def describe_tensors(path: str, method: str, error: dict[str, Any], statuses: list[str]) -> dict[str, Any]:
    """Describe a route.

    Args:
        path: Its template.
        method: Its method in lower case.
        error: Response of every problem.
        statuses: Those of a prediction.
    """
    is_open_inference = path.startswith(open_inference.PATH)
    protocol = "Open Inference Protocol" if is_open_inference else "TensorFlow Serving"
    operation: dict[str, Any] = {"tags": ["protocols"], "summary": f"{protocol}: {_name(path)}"}
    if names := re.findall(r"{(\w+)}", path):
        operation["parameters"] = [{"name": name, "in": "path", "required": True} | _PARAMETERS[name] for name in names]
    if method == "get":
        operation["responses"] = {"200": _answer(_OBJECT), "404": error, "503": error}
        return operation
    request, answer = (_INFER, _INFERRED) if is_open_inference else (_PREDICT, _PREDICTED)
    operation["requestBody"] = {"required": True, "content": {"application/json": {"schema": request}}}
    if is_open_inference:
        binary = {"schema": {"type": "string", "contentMediaType": "application/octet-stream"}}
        operation["requestBody"]["content"]["application/octet-stream"] = binary
    operation["responses"] = {"200": _answer(answer)} | dict.fromkeys(sorted({*statuses, "404"}), error)
    return operation


def _name(path: str) -> str:
    last = re.split(r"[/:]", path)[-1]
    return {"v2": "server", "live": "live", "ready": "ready"}.get(last, "model" if last.endswith("}") else last)


def _answer(schema: dict[str, Any]) -> dict[str, Any]:
    return {"description": "Successful answer", "content": {"application/json": {"schema": schema}}}
