"""JSON schemas of the Open Inference Protocol and of TensorFlow Serving's REST."""

from typing import Any

from service.api.request_bodies import BASE64, EXAMPLE_IMAGE

_TEXT, _FLAG, _ANY = {"type": "string"}, {"type": "boolean"}, {"type": "object"}
_COUNT = {"type": "integer", "minimum": 1}
_NUMBERS = {
    "type": "array",
    "minItems": 1,
    "items": {"anyOf": [{"type": "number", "minimum": 0, "maximum": 255}, {"type": "array", "items": {}}]},
}
_ROWS = {"type": "array", "items": {"type": "array", "items": {"type": "number", "minimum": 0, "maximum": 1}}}


def _describe(example: dict[str, Any], *optional: str, **properties: Any) -> dict[str, Any]:
    """Return the schema of an object. Further properties are ignored in requests."""
    required = [name for name in properties if name not in optional]
    return {"type": "object", "required": required, "properties": properties, "example": example}


def _part(*optional: str, **properties: Any) -> dict[str, Any]:
    schema = _describe({}, *optional, **properties)
    return {key: value for key, value in schema.items() if key != "example"}


def _input(name: str, datatype: str, shape: dict[str, Any], data: dict[str, Any]) -> dict[str, Any]:
    return _part(name={"const": name}, datatype={"const": datatype}, shape=shape, data=data)


def _list_of(items: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": items}


_SHAPE = {"type": "array", "items": _COUNT, "minItems": 4, "maxItems": 4}
_INPUT = {
    "oneOf": [
        _input(
            "encoded",
            "BYTES",
            {"type": "array", "items": _COUNT, "minItems": 1, "maxItems": 1},
            {"type": "array", "items": BASE64, "minItems": 1},
        ),
        _input("images", "UINT8", _SHAPE, _NUMBERS),
        _input("images_fp32", "FP32", _SHAPE, _NUMBERS),
    ],
    "description": "The shape is [N], or that of N images of the model's size: [N, height, width, 3]. The data may be "
    "nested or flat. In `application/octet-stream` the parameter `binary_data_size` takes the place of `data`.",
}
_OUTPUT = _part(
    "parameters",
    name={"const": "probabilities"},
    parameters={**_part("classification", "binary_data", classification=_COUNT, binary_data=_FLAG)},
)
INFER = _describe(
    {
        "id": "7",
        "inputs": [{"name": "encoded", "datatype": "BYTES", "shape": [1], "data": [EXAMPLE_IMAGE]}],
        "outputs": [{"name": "probabilities", "parameters": {"classification": 2}}],
    },
    "id",
    "outputs",
    "parameters",
    id={"type": ["string", "null"], "maxLength": 256, "description": "It is repeated in the answer."},
    inputs={"type": "array", "minItems": 1, "maxItems": 1, "items": _INPUT},
    outputs={"type": ["array", "null"], "maxItems": 1, "items": _OUTPUT},
    parameters={**_part("binary_data_output", binary_data_output=_FLAG), "type": ["object", "null"]},
)
"""Request of Open Inference."""

INFERRED = _describe(
    {
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
    "id",
    model_name=_TEXT,
    model_version=_TEXT,
    id={**_TEXT, "description": "As in the request."},
    outputs=_list_of(
        _part(
            "data",
            "parameters",
            name={"const": "probabilities"},
            datatype={"enum": ["FP32", "BYTES"]},
            shape={"type": "array", "items": _COUNT, "minItems": 2, "maxItems": 2},
            data={
                "type": "array",
                "items": {"type": ["number", "string"]},
                "description": "Probabilities, or with `classification` texts of the form `probability:index:label`.",
            },
            parameters=_part(binary_data_size={"type": "integer", "minimum": 0}),
        )
    ),
)
"""Answer of Open Inference. With binary data it has no `data`."""

SERVER_METADATA = _describe(
    {"name": "flowers", "version": "1.0.0", "extensions": ["classification", "binary_tensor_data"]},
    name=_TEXT,
    version=_TEXT,
    extensions=_list_of(_TEXT),
)
"""Metadata of the server."""

_TENSOR_METADATA = _list_of(_part(name=_TEXT, datatype=_TEXT, shape=_list_of({"type": "integer", "minimum": -1})))
_PIXELS_RULE: dict[str, Any] = {
    "resize": _TEXT,
    "shorter_side": _COUNT,
    "image_size": _COUNT,
    "filter": _TEXT,
    "pixels": _TEXT,
}
_PIXELS_EXAMPLE = {
    "resize": "shorter side, centre crop",
    "shorter_side": 256,
    "image_size": 224,
    "filter": "bilinear with antialiasing, as Pillow's",
    "pixels": "upright sRGB, 0 to 255",
}
MODEL_METADATA = _describe(
    {
        "name": "flowers",
        "versions": ["3"],
        "platform": "tensorflow_savedmodel",
        "inputs": [{"name": "encoded", "datatype": "BYTES", "shape": [-1]}],
        "outputs": [{"name": "probabilities", "datatype": "FP32", "shape": [-1, 5]}],
        "parameters": {"inputs": "Send exactly one.", **_PIXELS_EXAMPLE},
    },
    name=_TEXT,
    versions=_list_of(_TEXT),
    platform=_TEXT,
    inputs=_TENSOR_METADATA,
    outputs=_TENSOR_METADATA,
    parameters={**_part(inputs=_TEXT, **_PIXELS_RULE), "description": "How a client makes pixels of a photograph."},
)
"""Metadata of a model in Open Inference."""

LIVE = _describe({"live": True}, live={"const": True})
READY = _describe({"live": True, "ready": True}, live={"const": True}, ready={"const": True})
MODEL_READY = _describe({"name": "flowers", "ready": True}, name=_TEXT, ready={"const": True})
"""Probes of Open Inference."""

_IMAGE = {
    "anyOf": [
        {"type": "object", "required": ["b64"], "additionalProperties": False, "properties": {"b64": BASE64}},
        {**_NUMBERS, "description": "Pixels of the model's size, nested as [height, width, 3]."},
    ]
}
_NAMED_IMAGE = {
    "type": "object",
    "required": ["images"],
    "additionalProperties": False,
    "properties": {"images": _IMAGE},
}
_IMAGES = {"type": "array", "minItems": 1, "items": {"anyOf": [*_IMAGE["anyOf"], _NAMED_IMAGE]}}
PREDICT: dict[str, Any] = {
    **_describe(
        {"instances": [{"b64": EXAMPLE_IMAGE}]},
        "instances",
        "inputs",
        "signature_name",
        instances={**_IMAGES, "description": "Row format: an image in each place."},
        inputs={
            "description": "Column format: all images, or an object with them.",
            "anyOf": [
                _IMAGES,
                _IMAGE["anyOf"][0],
                {**_NAMED_IMAGE, "properties": {"images": {"anyOf": [_IMAGES, _IMAGE["anyOf"][0]]}}},
            ],
        },
        signature_name={"enum": ["serving_default", ""]},
    ),
    "oneOf": [{"required": ["instances"]}, {"required": ["inputs"]}],
}
"""Request of TensorFlow Serving."""

PREDICTED = {
    **_describe(
        {"predictions": [[0.002, 0.003, 0.941, 0.003, 0.051]]},
        "predictions",
        "outputs",
        predictions={**_ROWS, "description": "Probabilities of each image, for `instances`."},
        outputs={**_ROWS, "description": "Probabilities of each image, for `inputs`."},
    ),
    "oneOf": [{"required": ["predictions"]}, {"required": ["outputs"]}],
}
"""Answer of TensorFlow Serving."""

STATUS = _describe(
    {
        "model_version_status": [
            {"version": "3", "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}
        ],
        "name": "flowers",
        "ready": True,
    },
    model_version_status=_list_of(
        _part(version=_TEXT, state={"const": "AVAILABLE"}, status=_part(error_code=_TEXT, error_message=_TEXT))
    ),
    name=_TEXT,
    ready={"const": True, "description": "KServe's clients read it."},
)
"""State of the live version in TensorFlow Serving."""

METADATA = _describe(
    {
        "model_spec": {"name": "flowers", "signature_name": "", "version": "3"},
        "metadata": {
            "signature_def": {
                "signature_def": {
                    "serving_default": {"inputs": {}, "outputs": {}, "method_name": "tensorflow/serving/predict"}
                }
            },
            "preprocessing": _PIXELS_EXAMPLE,
        },
    },
    model_spec=_part(name=_TEXT, signature_name=_TEXT, version=_TEXT),
    metadata=_part(
        signature_def=_part(signature_def={"type": "object", "additionalProperties": _ANY}),
        preprocessing=_part(**_PIXELS_RULE),
    ),
)
"""Signature of the live version in TensorFlow Serving."""
