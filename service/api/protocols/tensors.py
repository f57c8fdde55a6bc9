"""Inputs of the Open Inference Protocol -> images. Bytes and shapes are checked before anything is allocated.

Source: Triton's extension "Binary Tensor Data".
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from service.api.json_bodies import JsonValue
from service.api.number_arrays import NumberArray, read_pixels, round_pixels
from service.api.protocols.served_model import TensorLimits
from service.errors import InvalidParameter, MalformedRequest, MissingImage
from service.imaging.pixels import Pixels

IMAGES, IMAGES_FP32, ENCODED = "images", "images_fp32", "encoded"
DATATYPES = {IMAGES: "UINT8", IMAGES_FP32: "FP32", ENCODED: "BYTES"}
"""Names of the inputs with their datatypes. A request has exactly one of them."""
BINARY_SIZE = "binary_data_size"
_LENGTH_BYTES = 4  # before each element of a BYTES tensor
_FLOAT = np.dtype("<f4")


@dataclass(frozen=True)
class InputTensor:
    """One input. Its data are a value of the document, or `binary`, the rest of the body. One of the two is None."""

    name: str
    shape: tuple[int, ...]
    data: JsonValue
    binary: memoryview | None


def take_input(
    fields: Mapping[str, JsonValue], binary: memoryview, image_size: int, limits: TensorLimits
) -> InputTensor:
    """Check the fields of an input, but for its data. `binary` is what follows the JSON.

    Raises:
        InvalidParameter: The name, the datatype or the shape is none of the model's.
        MalformedRequest: The binary data have another length than the fields say.
        MissingImage: There are no data.
        TooManyImages: The shape has too many.
    """
    name = fields.get("name")
    if not isinstance(name, str) or name not in DATATYPES:
        raise InvalidParameter(f"An input is called {_show(name)}. Send exactly one of {', '.join(DATATYPES)}.")
    if fields.get("datatype") != DATATYPES[name]:
        raise InvalidParameter(f"{name} has datatype {_show(fields.get('datatype'))}. Send {DATATYPES[name]}.")
    shape = _read_shape(name, fields.get("shape"), image_size)
    limits.check_count(shape[0])
    size = as_parameters(fields.get("parameters"), name).get(BINARY_SIZE)
    if size is None:
        if len(binary):
            raise MalformedRequest(f"{len(binary)} bytes follow the JSON. Give {name} the parameter {BINARY_SIZE}.")
        if "data" not in fields:
            raise MissingImage(f"{name} has neither data nor the parameter {BINARY_SIZE}. Send one of them.")
        return InputTensor(name, shape, fields["data"], None)
    if not isinstance(size, int) or isinstance(size, bool) or size != len(binary):
        raise MalformedRequest(
            f"{name} has {BINARY_SIZE} {_show(size)}, and {len(binary)} bytes follow the JSON. Send as many as it says."
        )
    if "data" in fields:
        raise InvalidParameter(f"{name} has data and the parameter {BINARY_SIZE}. Send one of them.")
    return InputTensor(name, shape, None, binary)


def read_images(tensor: InputTensor, limits: TensorLimits) -> list[bytes | Pixels]:
    """Return the images: files, or pixels of uint8, shape (image_size, image_size, 3).

    Raises:
        InvalidParameter: The data have another shape, or a value that is no pixel.
        MalformedRequest: The data are no JSON, or their bytes have another length than the shape says.
        MissingImage, ImageBytesTooLarge, InvalidImage: As `decode_image`.
    """
    if tensor.name == ENCODED:
        return _split(tensor.binary, tensor.shape[0], limits) if tensor.binary is not None else _decode(tensor, limits)
    if tensor.binary is not None:
        return _view(tensor.name, tensor.shape, tensor.binary)
    if not isinstance(tensor.data, NumberArray):
        raise InvalidParameter(f"{tensor.name} has other data than numbers of shape {list(tensor.shape)}. Send those.")
    is_float = tensor.name == IMAGES_FP32
    return list(read_pixels(tensor.data, tensor.shape, tensor.name, is_float=is_float, may_be_flat=True))


def as_parameters(value: JsonValue, name: str) -> Mapping[str, JsonValue]:
    """Return the parameters of a part of the document. There may be none. Raises `InvalidParameter` for no object."""
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise InvalidParameter(f"The parameters of {name} are no JSON object. Send an object, or leave them out.")
    return value


def _read_shape(name: str, value: JsonValue, image_size: int) -> tuple[int, ...]:
    square = () if name == ENCODED else (image_size, image_size, 3)
    expected = "[" + ",".join(["N", *map(str, square)]) + "]"
    if not isinstance(value, list) or len(value) != len(square) + 1:
        raise InvalidParameter(f"{name} has another number of axes than {expected}. Send that shape.")
    shape = [size for size in value if isinstance(size, int) and not isinstance(size, bool) and size >= 0]
    if len(shape) != len(value) or tuple(shape[1:]) != square:
        raise InvalidParameter(f"{name} has another shape than {expected}. Send that shape.")
    return tuple(shape)


def _view(name: str, shape: tuple[int, ...], binary: memoryview) -> list[bytes | Pixels]:
    """Return pixels of binary data. Those of uint8 are views of the body."""
    dtype = _FLOAT if name == IMAGES_FP32 else np.dtype(np.uint8)
    num_bytes = math.prod(shape) * dtype.itemsize
    if len(binary) != num_bytes:
        raise MalformedRequest(f"{name} has {len(binary)} bytes. Its shape and datatype want {num_bytes}. Send those.")
    images = np.frombuffer(binary, dtype).reshape(shape)
    if name == IMAGES:
        return list(images)
    return [round_pixels(image, name) for image in images]


def _split(binary: memoryview, num_images: int, limits: TensorLimits) -> list[bytes | Pixels]:
    """Return the elements of a BYTES tensor. Each has its length before it: 4 bytes, little-endian."""
    files: list[bytes | Pixels] = []
    position = 0
    for number in range(num_images):
        start = position + _LENGTH_BYTES
        position = start + int.from_bytes(binary[position:start], "little")
        if start > len(binary) or position > len(binary):
            raise MalformedRequest(f"{ENCODED}[{number}] ends behind the body. Let a client library write the tensor.")
        if position == start:
            raise MissingImage(f"{ENCODED}[{number}] is empty. Send an image file there.")
        limits.check_file(position - start)
        files.append(bytes(binary[start:position]))
    if position != len(binary):
        raise MalformedRequest(f"{ENCODED} has bytes behind its last element. Let a client library write the tensor.")
    limits.check_bytes(len(binary))
    return files


def _decode(tensor: InputTensor, limits: TensorLimits) -> list[bytes | Pixels]:
    if not isinstance(tensor.data, list) or len(tensor.data) != tensor.shape[0]:
        raise InvalidParameter(f"{ENCODED} has other data than a list of {tensor.shape[0]} strings. Send those.")
    return limits.decode_base64([(f"{ENCODED}[{number}]", value) for number, value in enumerate(tensor.data)])


def _show(value: JsonValue) -> str:
    return repr(value)[:40] if isinstance(value, str | int | float | None) else "no short value"
