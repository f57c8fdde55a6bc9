"""OpenAPI document of the protocols' routes."""

from typing import Any

from pydantic import TypeAdapter

from service.api import problems
from service.api.protocols import hugging_face, sagemaker
from service.api.protocols.protocol import Protocols
from service.api.protocols.tensor_documents import describe_tensors, is_tensor_path
from service.api.schemas import LabelScore, PredictionBody, VertexBody

_REFERENCE = "#/components/schemas/{model}"
_BASE64 = {"type": "string", "description": "The image file in base64, or a data URL of it. No other URL is fetched."}
_TOP_K = {"type": "integer", "minimum": 1, "description": "Number of scores. The default is all classes."}
_BINARY = {"schema": {"type": "string", "contentMediaType": "application/octet-stream"}}
IMAGE_DOCUMENT = {
    "type": "object",
    "required": ["image"],
    "additionalProperties": False,
    "properties": {"image": _BASE64, "top_k": _TOP_K},
    "example": {"image": "/9j/4AAQSkZJRg...", "top_k": 3},
}
"""Schema of a body in JSON on `/predict`."""
_INPUTS = {
    "type": "object",
    "required": ["inputs"],
    "additionalProperties": False,
    "properties": {
        "inputs": _BASE64,
        "parameters": {"type": "object", "properties": {"top_k": _TOP_K, "function_to_apply": {"enum": ["softmax"]}}},
    },
    "example": {"inputs": "/9j/4AAQSkZJRg...", "parameters": {"top_k": 3}},
}
_INSTANCES = {
    "type": "object",
    "required": ["instances"],
    "additionalProperties": False,
    "properties": {
        "instances": {"type": "array", "minItems": 1, "items": {"type": "object", "properties": {"b64": _BASE64}}},
        "parameters": {"type": "object", "properties": {"top_k": _TOP_K}},
    },
    "example": {"instances": [{"b64": "/9j/4AAQSkZJRg..."}], "parameters": {"top_k": 3}},
}
_PROBE = {"type": "object", "properties": {"status": {"type": "string"}}, "example": {"status": "ready"}}


def document_protocols(document: dict[str, Any], protocols: Protocols) -> None:
    """Add the routes of protocols to an OpenAPI document. A path that it describes already is left as it is."""
    schemas = document["components"]["schemas"]
    for body in (LabelScore, VertexBody):
        schema = TypeAdapter(body).json_schema(ref_template=_REFERENCE)
        schemas.update(schema.pop("$defs", {}))
        schemas[body.__name__] = schema
    for route in protocols.routes:
        if route.path not in document["paths"] and route.include_in_schema:
            method = "post" if "POST" in (route.methods or ()) else "get"
            document["paths"][route.path] = {method: _describe(route.path, method)}


def _describe(path: str, method: str) -> dict[str, Any]:
    statuses = sorted({str(problems.find(kind).status) for kind in problems.PREDICTION_ERRORS} | {"500"})
    if is_tensor_path(path):
        return describe_tensors(path, method, _ERROR, statuses)
    if method == "get":
        return {
            "tags": ["protocols"],
            "summary": "Probe of SageMaker" if path == sagemaker.PING else "Probe of Vertex AI",
            "responses": {"200": _answer(_PROBE), "503": _ERROR},
        }
    forms: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
        hugging_face.PATH: (_INPUTS, {"type": "array", "items": _refer(LabelScore)}, "Hugging Face's InferenceClient"),
        sagemaker.INVOCATIONS: (IMAGE_DOCUMENT, _refer(PredictionBody), "Predictions for SageMaker"),
    }
    request, answer, summary = forms.get(path, (_INSTANCES, _refer(VertexBody), "Predictions for Vertex AI"))
    content: dict[str, Any] = {"application/json": {"schema": request}}
    if request is not _INSTANCES:
        content |= {"image/*": _BINARY, "application/octet-stream": _BINARY}
    return {
        "tags": ["protocols"],
        "summary": summary,
        "requestBody": {"required": True, "content": content},
        "responses": {"200": _answer(answer)} | dict.fromkeys(statuses, _ERROR),
    }


def _refer(body: type) -> dict[str, str]:
    return {"$ref": _REFERENCE.format(model=body.__name__)}


def _answer(schema: dict[str, Any]) -> dict[str, Any]:
    return {"description": "Successful answer", "content": {"application/json": {"schema": schema}}}


_ERROR = {
    "description": "A problem, in the form of the protocol",
    "content": {
        "application/json": {
            "schema": {"type": "object", "properties": {"error": {"type": "string"}}},
            "example": {"error": "What happened, what was expected, and what to do."},
        }
    },
}
