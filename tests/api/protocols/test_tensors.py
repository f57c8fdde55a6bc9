from typing import Any

import numpy as np
import pytest
from support.tensors import bytes_tensor, squares_of, tensor

from service.api.protocols.served_model import TensorLimits
from service.api.protocols.tensors import read_images, take_input
from service.api.upload import UploadLimits
from service.errors import ImageBytesTooLarge, MalformedRequest, TooManyImages

LIMITS = TensorLimits(UploadLimits(max_image_bytes=100, body_timeout_s=1), max_images=4, max_bytes=150)
PIXELS = squares_of(1, 2)


def read(name: str, datatype: str, shape: list[int], binary: bytes) -> Any:
    fields = tensor(name, datatype, shape, parameters={"binary_data_size": len(binary)})
    return read_images(take_input(fields, memoryview(binary), 224, LIMITS), LIMITS)


def test_binary_integers_are_not_copied() -> None:
    body = PIXELS.tobytes()
    images = read("images", "UINT8", list(PIXELS.shape), body)
    assert all(np.shares_memory(image, np.frombuffer(body, np.uint8)) for image in images)
    np.testing.assert_array_equal(images, PIXELS)


def test_binary_floats_are_rounded_half_to_even() -> None:
    values = PIXELS.astype("<f4")
    values[0, 0, 0], values[1, 0, 0] = [0.5, 1.5, 2.5], [254.5, 255, 0]
    body = b"{" + values.tobytes()  # JSON before it takes any number of bytes
    fields = tensor("images_fp32", "FP32", list(PIXELS.shape), parameters={"binary_data_size": len(body) - 1})
    images: Any = read_images(take_input(fields, memoryview(body)[1:], 224, LIMITS), LIMITS)
    assert [images[0][0, 0].tolist(), images[1][0, 0].tolist()] == [[0, 2, 2], [254, 255, 0]]


def test_binary_files_are_split_by_their_lengths() -> None:
    assert read("encoded", "BYTES", [2], bytes_tensor(b"one", b"another")) == [b"one", b"another"]


@pytest.mark.parametrize(
    ("shape", "binary", "error"),
    [
        ([5], bytes_tensor(*[b"x"] * 5), TooManyImages),
        ([1], bytes_tensor(bytes(101)), ImageBytesTooLarge),
        ([2], bytes_tensor(bytes(90), bytes(90)), ImageBytesTooLarge),
        ([1], bytes_tensor(b"a", b"b"), MalformedRequest),
        ([2], bytes_tensor(b"a"), MalformedRequest),
        ([1], b"\x05\0\0\0four", MalformedRequest),
    ],
)
def test_binary_files_keep_their_bounds(shape: list[int], binary: bytes, error: type[Exception]) -> None:
    with pytest.raises(error):
        read("encoded", "BYTES", shape, binary)
