"""Squares of pixels, and requests with them in the words of the protocols with tensors."""

import json
from typing import Any

import numpy as np
from numpy.typing import NDArray

INFER = "/v2/models/flowers/infer"
PREDICT = "/v1/models/flowers:predict"
OCTETS = {"Content-Type": "application/octet-stream"}


def squares_of(*values: int) -> NDArray[np.uint8]:
    """One square for each value, filled with it."""
    return np.stack([np.full((224, 224, 3), value, np.uint8) for value in values])


def tensor(name: str, datatype: str, shape: list[int], **fields: Any) -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": shape, **fields}


def images_tensor(pixels: NDArray[np.uint8], **fields: Any) -> dict[str, Any]:
    """The input `images`. Without other fields it holds nested data."""
    return tensor("images", "UINT8", list(pixels.shape), **(fields or {"data": pixels.tolist()}))


def pack(document: Any, binary: bytes) -> dict[str, Any]:
    """The body and the headers of a request with binary data, for httpx."""
    head = json.dumps(document).encode()
    return {"content": head + binary, "headers": OCTETS | {"Inference-Header-Content-Length": str(len(head))}}


def binary_request(name: str, datatype: str, shape: list[int], binary: bytes, **fields: Any) -> dict[str, Any]:
    """A request with one input whose data follow the JSON, for httpx."""
    sizes = {"binary_data_size": len(binary)}
    return pack({"inputs": [tensor(name, datatype, shape, parameters=sizes)], **fields}, binary)


def bytes_tensor(*elements: bytes) -> bytes:
    """Binary data of a BYTES tensor."""
    return b"".join(len(element).to_bytes(4, "little") + element for element in elements)
