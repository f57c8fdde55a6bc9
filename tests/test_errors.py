import errno

import pytest

from service.errors import EngineFailed, InvalidImage, InvalidVersion, OutOfMemory, is_out_of_memory


class ResourceExhaustedError(Exception):
    """As TensorFlow calls it."""


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        OutOfMemory("no memory"),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
        BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable"),
        RuntimeError("can't start new thread"),
        RuntimeError("[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : Exception during initialization: std::bad_alloc"),
        RuntimeError("Failed to allocate memory for requested buffer of size 1234"),
        ResourceExhaustedError("of a tensor"),
        OSError("out of memory error when reading image file"),
        RuntimeError("Failed to decode image: Out of memory"),
        OSError("Insufficient memory (case 4)"),
        RuntimeError("not enough memory to open the file"),
        RuntimeError("OOM when allocating tensor with shape[64,224,224,3]"),
    ],
)
def test_want_of_memory_shows_in_type_or_text(error: Exception) -> None:
    assert is_out_of_memory(error)
    outer = InvalidVersion("it cannot be loaded")
    outer.__cause__ = error
    assert is_out_of_memory(outer)


def test_an_error_while_handling_another_has_its_reason() -> None:
    error = EngineFailed("the engine failed")
    error.__context__ = MemoryError()
    assert is_out_of_memory(error)
    error.__suppress_context__ = True  # as `from None` has it
    assert not is_out_of_memory(error)


@pytest.mark.parametrize(
    "error",
    [None, ValueError("broken"), OSError(errno.EIO, "input/output error"), InvalidImage("a file out of memory lane")],
)
def test_other_errors_are_no_want_of_memory(error: Exception | None) -> None:
    assert not is_out_of_memory(error)
