"""Open Inference Protocol, version 2 (KServe's and Triton's REST), with classification and binary tensors.

Source: KServe's "Open Inference Protocol", and Triton's "Classification Extension" and "Binary Tensor Data Extension".
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from service import __version__
from service.api.classification import Asked, Ranked, classify_request
from service.api.json_bodies import JsonValue, LongText, check_text, parse_json, read_body
from service.api.protocols.protocol import Protocol
from service.api.protocols.served_model import (
    NAME,
    VERSION,
    TensorLimits,
    check_encoding,
    check_version,
    describe_pixels,
    find_served,
    list_row,
    list_versions,
    require_ready_version,
)
from service.api.protocols.tensors import BINARY_SIZE, DATATYPES, ENCODED, as_parameters, read_images, take_input
from service.api.record import record_of
from service.api.routes.health import require_ready
from service.api.service import service_of
from service.errors import InvalidParameter, MalformedRequest, MissingImage
from service.inference.admission import Ticket
from service.ranking import check_top_k

PATH = "/v2"
_MODEL, _HEALTH = f"{PATH}/models/{{{NAME}}}", f"{PATH}/health"
_OF_VERSION = f"{_MODEL}/versions/{{{VERSION}}}"
_OUTPUT = "probabilities"
LENGTH_HEADER = "Inference-Header-Content-Length"
"""Header with the length of the JSON, where binary data follow it."""
_MAX_ID_BYTES = 1024
_MAX_BLANKS = 1024  # behind the JSON
_EXTENSIONS = ["classification", "binary_tensor_data"]
_ONE_OF = f"Send exactly one of {', '.join(DATATYPES)}. In JSON an element of {ENCODED} is an image file in base64."


@dataclass(frozen=True)
class Wish:
    """Form of the answer that a request asks for.

    Attributes:
        id: To be repeated. None means that it has none.
        num_classes: Number of classifications for each image. 0 means the probabilities themselves.
        is_binary: Whether the output follows the JSON.
    """

    id: str | None
    num_classes: int
    is_binary: bool


@dataclass(frozen=True)
class OpenInference:
    """Handlers of the protocol, with the limits of a request."""

    limits: TensorLimits

    async def infer(self, request: Request) -> Response:
        """Classify the images of the one input tensor."""
        served = find_served(request)
        check_encoding(request)
        image_size, num_classes = served.rule.image_size, len(served.metadata.class_names)
        wish = Wish(None, 0, is_binary=False)

        def translate(body: bytes) -> Asked:
            nonlocal wish
            num_json = _read_header_length(request, body)
            document = parse_json(body if num_json == len(body) else body[:num_json], lifts_arrays=True)
            fields = _as_object(document, "The body")
            wish = _read_wish(fields, num_classes)
            inputs = fields.get("inputs")
            if not isinstance(inputs, list) or not inputs:
                raise MissingImage(f"The JSON has no list 'inputs' with an input. {_ONE_OF}")
            if len(inputs) > 1:
                raise InvalidParameter(f"The request has {len(inputs)} inputs. {_ONE_OF}")
            binary = memoryview(body)[num_json:]
            tensor = take_input(_as_object(inputs[0], "inputs[0]"), binary, image_size, self.limits)
            return Asked(read_images(tensor, self.limits))

        async def read(ticket: Ticket) -> Asked:
            return await read_body(request, ticket, self.limits.upload, translate, self.limits.max_body_bytes(request))

        ranked = await classify_request(request, read)
        check_version(request, ranked[0].classified.version)
        return _answer(ranked, wish, record_of(request.scope).server_timing())


async def describe_server(request: Request) -> Response:  # noqa: ARG001
    """Answer the server's metadata."""
    return JSONResponse({"name": "flowers", "version": __version__, "extensions": _EXTENSIONS})


async def describe_model(request: Request) -> Response:
    """Answer the model's metadata."""
    served = find_served(request)
    side = served.rule.image_size
    shapes = {name: [-1] if name == ENCODED else [-1, side, side, 3] for name in DATATYPES}
    inputs = [{"name": name, "datatype": DATATYPES[name], "shape": shapes[name]} for name in DATATYPES]
    output = {"name": _OUTPUT, "datatype": "FP32", "shape": [-1, len(served.metadata.class_names)]}
    metadata = {
        "name": served.model,
        "versions": list_versions(request, served),
        "platform": "tensorflow_savedmodel",
        "inputs": inputs,
        "outputs": [output],
        "parameters": {"inputs": _ONE_OF, **describe_pixels(served)},
    }
    return JSONResponse(metadata)


async def answer_live(request: Request) -> Response:  # noqa: ARG001
    """Answer while the event loop does."""
    return JSONResponse({"live": True})


async def answer_ready(request: Request) -> Response:
    """Answer while the service takes work. Raises `NotReady`, `Draining`."""
    require_ready(service_of(request))
    return JSONResponse({"live": True, "ready": True})


async def answer_model_ready(request: Request) -> Response:
    """Answer while the version of the path is live and the service takes work."""
    return JSONResponse({"name": require_ready_version(request).model, "ready": True})


def make_protocol(limits: TensorLimits) -> Protocol:
    """Return the protocol, with routes for the live version with and without its number."""
    handlers, get = OpenInference(limits), ["GET"]
    routes = [
        Route(PATH, describe_server, methods=get),
        Route(f"{_HEALTH}/live", answer_live, methods=get),
        Route(f"{_HEALTH}/ready", answer_ready, methods=get),
    ]
    for model in (_MODEL, _OF_VERSION):
        # A partial for each route, as the metrics tell routes by their handlers.
        routes += [
            Route(model, partial(describe_model), methods=get),
            Route(f"{model}/ready", partial(answer_model_ready), methods=get),
            Route(f"{model}/infer", partial(handlers.infer), methods=["POST"]),
        ]
    return Protocol(routes, frozenset({PATH}), frozenset({f"{_HEALTH}/live", f"{_HEALTH}/ready", f"{_MODEL}/ready"}))


def _read_header_length(request: Request, body: bytes) -> int:
    """Return how many bytes of the body are JSON. Raises `MalformedRequest`."""
    text = request.headers.get(LENGTH_HEADER)
    if text is None:
        if not body[-_MAX_BLANKS:].rstrip().endswith(b"}"):
            raise MalformedRequest(
                f"The body does not end as a JSON object. Where binary data follow, give the header {LENGTH_HEADER}."
            )
        return len(body)
    if not (text.isascii() and text.isdecimal() and 0 < int(text[:12]) <= len(body)):
        raise MalformedRequest(
            f"{LENGTH_HEADER} is {text[:20]!r}, and the body has {len(body)} bytes. Let a client library write it."
        )
    return int(text[:12])


def _read_wish(fields: dict[str, JsonValue], num_classes: int) -> Wish:
    is_binary = _read_flag(as_parameters(fields.get("parameters"), "the request"), "binary_data_output", default=False)
    outputs = fields.get("outputs")
    if outputs is None or outputs == []:
        return Wish(_read_id(fields), 0, is_binary)
    if not isinstance(outputs, list) or len(outputs) != 1:
        raise InvalidParameter(f"outputs is no list with one output. Ask for {_OUTPUT!r} once, or leave it out.")
    output = _as_object(outputs[0], "outputs[0]")
    if output.get("name") != _OUTPUT:
        raise InvalidParameter(f"outputs[0] has another name than {_OUTPUT!r}. This model has that output only.")
    parameters = as_parameters(output.get("parameters"), "outputs[0]")
    count = parameters.get("classification")
    if count is not None:
        if not isinstance(count, int) or isinstance(count, bool):
            raise InvalidParameter("classification is no integer. Send the number of classes for each image.")
        check_top_k(count, num_classes, "classification")
    return Wish(_read_id(fields), count or 0, _read_flag(parameters, "binary_data", default=is_binary))


def _read_flag(parameters: Any, name: str, *, default: bool) -> bool:
    value = parameters.get(name, default)
    if not isinstance(value, bool):
        raise InvalidParameter(f"{name} is no boolean. Send true or false.")
    return value


def _read_id(fields: dict[str, JsonValue]) -> str | None:
    value = fields.get("id")
    if isinstance(value, LongText) and value.end - value.start <= _MAX_ID_BYTES:
        try:
            value = check_text(json.loads(value.body[value.start - 1 : value.end + 1]))
        except ValueError:
            raise MalformedRequest("id is no string of JSON. Let a library write it.") from None
    if value is None or isinstance(value, str):
        return value
    raise InvalidParameter(f"id is no string of up to {_MAX_ID_BYTES} bytes. Send such a one, or leave it out.")


def _as_object(value: JsonValue, name: str) -> dict[str, JsonValue]:
    if not isinstance(value, dict):
        raise InvalidParameter(f"{name} is no JSON object. Send an object, as the Open Inference Protocol has it.")
    return value


def _answer(ranked: Sequence[Ranked], wish: Wish, headers: dict[str, str]) -> Response:
    """Write the answer, in JSON or with the output behind it."""
    version = ranked[0].classified.version
    rows = [one.classified.probabilities for one in ranked]
    elements: list[str] = []
    if wish.num_classes:
        class_names = version.metadata.class_names
        elements = [element for row in rows for element in _classify(row, class_names, wish.num_classes)]
        output: dict[str, Any] = {"name": _OUTPUT, "datatype": "BYTES", "shape": [len(rows), wish.num_classes]}
    else:
        output = {"name": _OUTPUT, "datatype": "FP32", "shape": [len(rows), len(rows[0])]}
    binary = b""
    if wish.is_binary:
        binary = _pack(elements) if elements else np.stack(rows).astype("<f4").tobytes()
        output["parameters"] = {BINARY_SIZE: len(binary)}
    else:
        output["data"] = elements or [number for row in rows for number in list_row(row)]
    body: dict[str, Any] = {"model_name": version.model, "model_version": str(version.version), "outputs": [output]}
    if wish.id is not None:
        body["id"] = wish.id
    if not wish.is_binary:
        return JSONResponse(body, headers=headers)
    header = json.dumps(body).encode()
    headers |= {LENGTH_HEADER: str(len(header))}
    return Response(header + binary, media_type="application/octet-stream", headers=headers)


def _classify(row: Any, class_names: Sequence[str], num_classes: int) -> list[str]:
    """Return the best classes of one image as Triton writes them: `<probability>:<index>:<label>`."""
    best = np.argsort(-row, kind="stable")[:num_classes]
    return [f"{row[index]:.6f}:{index}:{class_names[index]}" for index in best]


def _pack(elements: Sequence[str]) -> bytes:
    """Return the elements of a BYTES tensor. Each has its length before it: 4 bytes, little-endian."""
    encoded = [element.encode() for element in elements]
    return b"".join(len(element).to_bytes(4, "little") + element for element in encoded)
