"""OpenAPI document of the protocols' routes."""

from collections.abc import Sequence
from typing import Any

from pydantic import TypeAdapter
from starlette.routing import Route

from service import errors
from service.api import problems
from service.api.operations import TIMING
from service.api.parameters import TIMEOUT_HEADER, TOP_K, TimeoutMs, TopK
from service.api.protocols import hugging_face, sagemaker
from service.api.protocols.protocol import Protocols
from service.api.protocols.tensor_documents import describe_answer, describe_tensors, is_tensor_path
from service.api.request_bodies import (
    BASE64,
    EXAMPLE_IMAGE,
    PREDICTION,
    TOP_K_IN_JSON,
    describe_image,
    describe_object,
)
from service.api.schemas import ErrorBody, LabelScore, PredictionBody, VertexBody

_REFERENCE = "#/components/schemas/{model}"
_JSON = "application/json"
_PARAMETERS = {
    "type": ["object", "null"],
    "additionalProperties": False,
    "properties": {TOP_K: TOP_K_IN_JSON, "function_to_apply": {"enum": ["softmax", None]}},
}
_INPUTS = describe_object(
    "inputs", {"inputs": EXAMPLE_IMAGE, "parameters": {TOP_K: 3}}, inputs=BASE64, parameters=_PARAMETERS
)
_INSTANCES = describe_object(
    "instances",
    {"instances": [{"b64": EXAMPLE_IMAGE}], "parameters": {TOP_K: 3}},
    instances={
        "type": "array",
        "minItems": 1,
        "items": {
            "type": "object",
            "required": ["b64"],
            "additionalProperties": False,
            "properties": {"b64": BASE64},
        },
    },
    parameters={**_PARAMETERS, "properties": {TOP_K: TOP_K_IN_JSON}},
)
_PROBE = {
    "type": "object",
    "required": ["status"],
    "properties": {"status": {"const": "ready"}},
    "example": {"status": "ready"},
}
_QUERY = {
    "name": TOP_K,
    "in": "query",
    "required": False,
    "schema": TypeAdapter(TopK).json_schema(),
    "description": "Number of scores. The default is all classes.",
}
_TIMEOUT = {
    "name": TIMEOUT_HEADER,
    "in": "header",
    "required": False,
    "schema": TypeAdapter(TimeoutMs).json_schema(),
    "description": "The client's timeout in milliseconds, upload included. The server has a limit of its own.",
}


def document_protocols(document: dict[str, Any], model: str, protocols: Protocols) -> None:
    """Add the routes of protocols to an OpenAPI document.

    Args:
        document: An operation that it describes already takes the instances of Vertex AI, too.
        model: Name of the model that is served, for examples.
        protocols: Those that are switched on.
    """
    schemas = document["components"]["schemas"]
    for body in (ErrorBody, LabelScore, VertexBody):
        schema = TypeAdapter(body).json_schema(ref_template=_REFERENCE)
        schemas.update(schema.pop("$defs", {}))
        schemas[body.__name__] = schema
    for route in protocols.routes:
        if not route.include_in_schema:
            continue
        method = "post" if "POST" in (route.methods or ()) else "get"
        operations = document["paths"].setdefault(route.path, {})
        if method in operations:
            _add_instances(operations[method])
        else:
            operations[method] = _describe(route, method, model, is_plain=protocols.has_path(route.path))


def _describe(route: Route, method: str, model: str, *, is_plain: bool) -> dict[str, Any]:
    """Describe one operation with every refusal that it can answer."""
    refusals: Sequence[type[Exception]] = (errors.NotReady, errors.Draining)
    if is_tensor_path(route.path):
        operation, refusals = describe_tensors(route.path, method, model)
    elif method == "get":
        summary = "Probe of SageMaker" if route.path == sagemaker.PING else "Probe of Vertex AI"
        operation = {"summary": summary, "responses": {"200": describe_answer(_PROBE)}}
    else:
        operation, refusals = _describe_prediction(route.path), problems.PREDICTION_ERRORS
    if method == "post":
        operation["parameters"] = [*operation.get("parameters", []), _TIMEOUT]
        operation["responses"]["200"]["headers"] = TIMING | operation["responses"]["200"].get("headers", {})
    for status, response in problems.document(*refusals, is_plain=is_plain).items():
        operation["responses"][str(status)] = response
    return {"tags": ["protocols"], **operation}


def _describe_prediction(path: str) -> dict[str, Any]:
    forms: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
        hugging_face.PATH: (
            "Hugging Face's InferenceClient",
            describe_image(_INPUTS),
            {"type": "array", "items": _refer(LabelScore), "example": [{"label": "roses", "score": 0.941}]},
        ),
        sagemaker.INVOCATIONS: ("Predictions for SageMaker", PREDICTION, _refer(PredictionBody)),
    }
    of_vertex = {"required": True, "content": {_JSON: {"schema": _INSTANCES}}}
    summary, body, answer = forms.get(path, ("Predictions for Vertex AI", of_vertex, _refer(VertexBody)))
    responses = {"200": describe_answer(answer)}
    return {"summary": summary, "requestBody": body, "parameters": [_QUERY], "responses": responses}


def _add_instances(operation: dict[str, Any]) -> None:
    """Let an operation of one image take the instances of Vertex AI, too. Their errors have the protocol's form."""
    body, responses = operation["requestBody"], operation["responses"]
    content = body["content"] | {_JSON: {"schema": {"anyOf": [body["content"][_JSON]["schema"], _INSTANCES]}}}
    operation["requestBody"] = {**body, "content": content}
    answer = responses["200"]["content"][_JSON]
    responses["200"]["content"][_JSON] = {"schema": {"anyOf": [answer["schema"], _refer(VertexBody)]}}
    for status, response in problems.document(*problems.PREDICTION_ERRORS, is_plain=True).items():
        known = responses[str(status)]
        responses[str(status)] = {**known, "content": response["content"] | known["content"]}


def _refer(body: type) -> dict[str, str]:
    return {"$ref": _REFERENCE.format(model=body.__name__)}
