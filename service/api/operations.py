"""Parts that all operations of the OpenAPI document have."""

import re
from typing import Any

_REQUEST_ID = "X-Request-ID"
_TAKEN_ID = {
    "name": _REQUEST_ID,
    "in": "header",
    "required": False,
    "schema": {"type": "string"},
    "description": "Id of the request. It is kept if it has 1 to 128 printable ASCII characters without spaces. "
    "Otherwise another takes its place.",
}
_ANSWERED_ID = {
    "required": True,
    "schema": {"type": "string", "pattern": "^[!-~]{1,128}$"},
    "description": "Id of the request.",
}
_REFERENCE = {"$ref": f"#/components/headers/{_REQUEST_ID}"}
TIMING = {
    "Server-Timing": {
        "schema": {"type": "string", "examples": ["decode;dur=3.1, queue;dur=0.4, infer;dur=9.8"]},
        "description": "Milliseconds of the stages.",
    }
}
"""Header of an answer with scores."""


def complete(document: dict[str, Any]) -> None:
    """Give each operation its id, the header of the request's id, and its responses in the order of their statuses.

    A 422 with FastAPI's own form is dropped, since no answer has it.
    """
    document["components"]["headers"] = {_REQUEST_ID: _ANSWERED_ID}
    for name in ("HTTPValidationError", "ValidationError"):
        document["components"]["schemas"].pop(name, None)
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            operation["operationId"] = name_operation(method, path)
            operation["parameters"] = [*operation.get("parameters", []), _TAKEN_ID]
            operation["responses"] = {
                status: {**response, "headers": {**response.get("headers", {}), _REQUEST_ID: _REFERENCE}}
                for status, response in sorted(operation["responses"].items())
                if "HTTPValidationError" not in str(response)
            }


def name_operation(method: str, path: str) -> str:
    """Return the id of an operation: its method and the words of its path, such as `get_models_name`."""
    return "_".join([method, *re.findall(r"\w+", path)] if path != "/" else [method, "page"])
