"""Request bodies of images, as the OpenAPI document describes them."""

from typing import Any

from pydantic import TypeAdapter

from service.api.multipart import FIELD
from service.api.parameters import TopK

EXAMPLE_IMAGE = "R0lGODdhAQABAIAAAAAAAAAAACwAAAAAAQABAAAIBAABBAQAOw=="
"""A GIF of one pixel in base64, so that each example of the document is answered."""

BINARY = {"schema": {"type": "string", "format": "binary", "minLength": 1}}
"""A body that is the file itself."""

BASE64 = {
    "type": "string",
    "minLength": 4,
    "pattern": "^(data:([A-Za-z0-9_.+-]+/[A-Za-z0-9_.+-]+)?;base64,)?"
    "([A-Za-z0-9+/]{4})*([A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$",
    "description": "The image file in base64, or a data URL of it. No other URL is fetched.",
}
"""Schema of an image file in JSON."""

TOP_K_IN_JSON = {
    **TypeAdapter(TopK).json_schema(),
    "type": ["integer", "null"],
    "description": "Number of scores. The default is all classes. null is no value.",
}
"""Schema of `top_k` in JSON."""

_FILE = {"type": "string", "format": "binary", "minLength": 1, "description": "The image."}
_TOP_K_FIELD = {
    **TypeAdapter(TopK).json_schema(),
    "description": "Number of scores, instead of the parameter of that name.",
}
_KINDS = "A JPEG, PNG, WebP, GIF, BMP, TIFF, AVIF or perhaps HEIC image. Its content decides, not its name."


def describe_form(**fields: Any) -> dict[str, Any]:
    """Return the media type of a form with the field `file` and further fields."""
    return {"schema": {"type": "object", "required": [FIELD], "properties": {FIELD: _FILE, **fields}}}


def describe_object(required: str, example: dict[str, Any], **properties: Any) -> dict[str, Any]:
    """Return the schema of a JSON object with these properties and no other. One of them is required."""
    return {
        "type": "object",
        "required": [required],
        "additionalProperties": False,
        "properties": properties,
        "example": example,
    }


def describe_image(document: dict[str, Any], **fields: Any) -> dict[str, Any]:
    """Return a body that is an image as a form, as the file itself, or as JSON.

    Args:
        document: Schema of the JSON.
        fields: Schemas of the form's further fields.
    """
    content = {
        "multipart/form-data": describe_form(**fields),
        "image/*": BINARY,
        "application/octet-stream": BINARY,
        "application/json": {"schema": document},
    }
    return {"required": True, "description": _KINDS, "content": content}


PREDICTION = describe_image(
    describe_object("image", {"image": EXAMPLE_IMAGE, "top_k": 3}, image=BASE64, top_k=TOP_K_IN_JSON),
    top_k=_TOP_K_FIELD,
)
"""Body of `/predict`."""

EXPLANATION = describe_image(describe_object("image", {"image": EXAMPLE_IMAGE}, image=BASE64))
"""Body of `/explain`."""

BATCH = {
    "required": True,
    "description": "A form with an image in each field `file`.",
    "content": {
        "multipart/form-data": describe_form(
            file={"type": "array", "items": {"type": "string", "format": "binary"}, "minItems": 1}, top_k=_TOP_K_FIELD
        )
    },
}
"""Body of `/predict/batch`."""
