"""TensorFlow Serving's REST API: status, metadata and predictions of the live version.

Source: TensorFlow Serving's "RESTful API".
"""

from dataclasses import dataclass
from functools import partial
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from service.api.classification import Asked, classify_request
from service.api.json_bodies import JsonValue, parse_json, read_body
from service.api.number_arrays import NumberArray, read_pixels
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
    require_ready_version,
)
from service.api.record import record_of
from service.engines.open_version import ServedVersion
from service.errors import InvalidParameter, MalformedRequest, MissingImage
from service.imaging.pixels import Pixels
from service.inference.admission import Ticket

PATH = "/v1"
_MODEL = f"{PATH}/models/{{{NAME}}}"
_OF_VERSION = f"{_MODEL}/versions/{{{VERSION}}}"
_SIGNATURE, _INPUT, _OUTPUT, _BASE64 = "serving_default", "images", "probabilities", "b64"
_ROWS, _COLUMNS = "instances", "inputs"


@dataclass(frozen=True)
class TensorFlowServing:
    """Handler of predictions, with the limits of a request."""

    limits: TensorLimits

    async def predict(self, request: Request) -> Response:
        """Classify pixels or image files, in row or column format."""
        served = find_served(request)
        check_encoding(request)
        image_size, has_rows = served.rule.image_size, True

        def translate(body: bytes) -> Asked:
            nonlocal has_rows
            fields = parse_json(body, lifts_arrays=True)
            if not isinstance(fields, dict):
                raise MalformedRequest(f"The body is no JSON object. Send an object with {_ROWS!r} or {_COLUMNS!r}.")
            if fields.get("signature_name", _SIGNATURE) not in (_SIGNATURE, ""):
                raise MalformedRequest(f"signature_name is not {_SIGNATURE!r}. Send that, or leave it out.")
            has_rows = _ROWS in fields
            if has_rows and _COLUMNS in fields:
                raise MalformedRequest(f"The JSON has {_ROWS!r} and {_COLUMNS!r}. Send one of them.")
            if not has_rows and _COLUMNS not in fields:
                raise MissingImage(f"The JSON has neither {_ROWS!r} nor {_COLUMNS!r}. Send one of them.")
            if has_rows:
                return Asked(self._read_images(fields[_ROWS], _ROWS, image_size))
            return Asked(self._read_images(_take_column(fields[_COLUMNS]), _COLUMNS, image_size))

        async def read(ticket: Ticket) -> Asked:
            return await read_body(request, ticket, self.limits.upload, translate, self.limits.max_body_bytes(request))

        ranked = await classify_request(request, read)
        check_version(request, ranked[0].classified.version)
        rows = [list_row(one.classified.probabilities) for one in ranked]
        headers = record_of(request.scope).server_timing()
        return JSONResponse({"predictions" if has_rows else "outputs": rows}, headers=headers)

    def _read_images(self, value: JsonValue, name: str, image_size: int) -> list[bytes | Pixels]:
        """Read one array of all images, or a list with a value for each."""
        if isinstance(value, NumberArray):
            return self._read_batch(value, name, image_size)
        return self._read_each(value, name, image_size)

    def _read_batch(self, array: NumberArray, name: str, image_size: int) -> list[bytes | Pixels]:
        """Read one array. The number of images follows from that of its values."""
        num_images = max(1, array.num_values // (image_size * image_size * 3))
        self.limits.check_count(num_images)
        return list(read_pixels(array, (num_images, image_size, image_size, 3), name))

    def _read_each(self, values: JsonValue, name: str, image_size: int) -> list[bytes | Pixels]:
        if not isinstance(values, list):
            raise InvalidParameter(f"{name} is no list. Send a list of images.")
        self.limits.check_count(len(values))
        images: list[bytes | Pixels] = []
        num_bytes = 0
        for number, value in enumerate(values):
            place = f"{name}[{number}]"
            if isinstance(value, dict) and _BASE64 not in value:
                value = _take_input(value, place)
            if isinstance(value, NumberArray):
                images.append(read_pixels(value, (image_size, image_size, 3), place))
            elif isinstance(value, dict) and value.keys() == {_BASE64}:
                (file,) = self.limits.decode_base64([(f"{place}.{_BASE64}", value[_BASE64])])
                num_bytes += len(file)
                self.limits.check_bytes(num_bytes)
                images.append(file)
            else:
                raise InvalidParameter(
                    f'{place} is no image. Send {{"{_BASE64}": "..."}}, or integers of shape '
                    f"{[image_size, image_size, 3]}."
                )
        return images


async def answer_status(request: Request) -> Response:
    """Answer the state of the live version, and whether it takes work. Raises `NotReady`, `Draining`."""
    served = require_ready_version(request)
    status = {"error_code": "OK", "error_message": ""}
    versions = [{"version": str(served.version), "state": "AVAILABLE", "status": status}]
    return JSONResponse({"model_version_status": versions, "name": served.model, "ready": True})


async def describe_model(request: Request) -> Response:
    """Answer the signature of the live version."""
    served = find_served(request)
    signature = {
        "inputs": {_INPUT: _describe_tensor("DT_UINT8", _INPUT, [-1, *_square(served)])},
        "outputs": {_OUTPUT: _describe_tensor("DT_FLOAT", _OUTPUT, [-1, len(served.metadata.class_names)])},
        "method_name": "tensorflow/serving/predict",
    }
    metadata = {
        "signature_def": {"signature_def": {_SIGNATURE: signature}},
        "preprocessing": describe_pixels(served),
    }
    model_spec = {"name": served.model, "signature_name": "", "version": str(served.version)}
    return JSONResponse({"model_spec": model_spec, "metadata": metadata})


async def refuse_method(request: Request) -> Response:  # noqa: ARG001
    """Refuse `:classify`, `:regress` and whatever else than `:predict`."""
    raise HTTPException(404)


def make_protocol(limits: TensorLimits) -> Protocol:
    """Return the protocol, with routes for the live version with and without its number."""
    handlers, get, post = TensorFlowServing(limits), ["GET"], ["POST"]
    routes = []
    for model in (_MODEL, _OF_VERSION):
        # A partial for each route, as the metrics tell routes by their handlers.
        routes += [
            Route(f"{model}:predict", partial(handlers.predict), methods=post),
            Route(f"{model}:{{method}}", partial(refuse_method), methods=post, include_in_schema=False),
            Route(f"{model}/metadata", partial(describe_model), methods=get),
            Route(model, partial(answer_status), methods=get),
        ]
    return Protocol(routes, frozenset({PATH}))


def _take_column(value: JsonValue) -> JsonValue:
    """Return the value of the input. An image file alone stands for a list with it."""
    if isinstance(value, dict) and _BASE64 not in value:
        value = _take_input(value, _COLUMNS)
    return [value] if isinstance(value, dict) else value


def _take_input(fields: dict[str, JsonValue], place: str) -> JsonValue:
    if fields.keys() != {_INPUT}:
        raise InvalidParameter(f"{place} has other fields than {_INPUT!r}. Send that input alone.")
    return fields[_INPUT]


def _square(served: ServedVersion) -> list[int]:
    return [served.rule.image_size, served.rule.image_size, 3]


def _describe_tensor(dtype: str, name: str, shape: list[int]) -> dict[str, Any]:
    dimensions = [{"size": str(size), "name": ""} for size in shape]
    return {
        "dtype": dtype,
        "tensor_shape": {"dim": dimensions, "unknown_rank": False},
        "name": f"{_SIGNATURE}_{name}:0",
    }
