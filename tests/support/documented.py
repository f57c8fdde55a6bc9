"""What an OpenAPI document says of an answer."""

import json
from typing import Any

import httpx

KINDS: dict[str, type | tuple[type, ...]] = {
    "object": dict, "array": list, "string": str, "boolean": bool, "integer": int, "number": (int, float),
    "null": type(None),
}  # fmt: skip


def find_operation(document: dict[str, Any], method: str, path: str) -> dict[str, Any]:
    operation: dict[str, Any] = document["paths"][path][method]
    return operation


def check_answer(document: dict[str, Any], method: str, path: str, response: httpx.Response) -> None:
    """Status, headers, media type and JSON are as the operation of this path's template has them."""
    described = find_operation(document, method, path)["responses"][str(response.status_code)]
    for name, header in described.get("headers", {}).items():
        if "$ref" in header:
            header = document["components"]["headers"][name]
        assert name in response.headers or not header.get("required"), name
    if response.content:
        kinds = {kind.partition(";")[0]: media for kind, media in described["content"].items()}
        kind = response.headers["content-type"].partition(";")[0]
        assert kind in kinds, f"{kind} of {response.status_code} at {path}"
        if kind.endswith("json"):
            assert fits(document, kinds[kind]["schema"], response.json()), response.text


def read_example(operation: dict[str, Any]) -> bytes:
    """The example of its body in JSON."""
    schema = operation["requestBody"]["content"]["application/json"]["schema"]
    return json.dumps(schema["example"]).encode()


def fits(document: dict[str, Any], schema: dict[str, Any], value: Any) -> bool:
    """Whether a value is as a schema has it, as far as types, constants and fields go."""
    if "$ref" in schema:
        schema = document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    if "anyOf" in schema:
        return any(fits(document, one, value) for one in schema["anyOf"])
    if "const" in schema or "enum" in schema:
        return value in schema.get("enum", [schema.get("const")])
    kinds = schema.get("type", list(KINDS))
    if not any(isinstance(value, KINDS[kind]) for kind in ([kinds] if isinstance(kinds, str) else kinds)):
        return False
    if isinstance(value, list):
        return all(fits(document, schema.get("items", {}), one) for one in value)
    if isinstance(value, dict) and "properties" in schema:
        known = schema["properties"]
        named = set(schema.get("required", ())) <= value.keys() <= known.keys()
        return named and all(fits(document, known[name], one) for name, one in value.items())
    return True
