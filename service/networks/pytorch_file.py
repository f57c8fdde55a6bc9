"""Weights from a file of PyTorch. The file is read without PyTorch, and nothing in it is run."""

import pickle
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from service.errors import WeightsError, is_out_of_memory

_MAGIC_NUMBER = 0x1950A86A20F9469CFC6C
_PROTOCOL_VERSION = 1001
_DTYPES: dict[str, np.dtype[Any]] = {"FloatStorage": np.dtype("<f4"), "LongStorage": np.dtype("<i8")}


@dataclass(frozen=True)
class _Tensor:
    """A view into a storage later in the file. Offset and strides count elements."""

    key: str
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def read_pytorch_weights(path: Path) -> dict[str, NDArray[Any]]:
    """Return the tensors of a state dict in the format of `torch.save` before PyTorch 1.6, by name.

    The format is three small pickles, the pickled dict, the pickled list of storage keys, then the storages as raw
    little-endian numbers. A pickle is a program. This reader admits only dicts and tensors of float32 and int64 in it.
    The shapes are PyTorch's (convolutions OIHW, dense layers (out, in)).

    Raises:
        WeightsError: The file cannot be read, is of another format, is cut off, or holds anything but tensors.
    """
    try:
        with path.open("rb") as file:
            return _read(file)
    except WeightsError:
        raise
    except OSError as error:
        raise WeightsError(f"the weights {path.name} cannot be read: {error.strerror}") from error
    except Exception as error:  # a broken pickle raises whatever its broken instructions lead to
        if is_out_of_memory(error):
            raise
        raise WeightsError(f"{path.name} is no intact file of PyTorch weights: {error}") from error


def _read(file: BinaryIO) -> dict[str, NDArray[Any]]:
    if _TensorUnpickler(file).load() != _MAGIC_NUMBER or _TensorUnpickler(file).load() != _PROTOCOL_VERSION:
        raise WeightsError("expected the format that torch.save wrote before PyTorch 1.6")
    if not _TensorUnpickler(file).load()["little_endian"]:
        raise WeightsError("The weights are stored big-endian. Little-endian was expected.")
    unpickler = _TensorUnpickler(file)
    tensors = unpickler.load()
    storages = {}
    for key in _TensorUnpickler(file).load():
        dtype, size = unpickler.storages[key]
        stated = int.from_bytes(_exactly(file, 8), "little")
        if stated != size:
            raise WeightsError(f"a storage holds {stated} numbers where its tensor says {size}")
        storages[key] = np.frombuffer(_exactly(file, size * dtype.itemsize), dtype)
    return {name: _view(tensor, storages[tensor.key]) for name, tensor in tensors.items()}


def _exactly(file: BinaryIO, num_bytes: int) -> bytes:
    data = file.read(num_bytes)
    if len(data) != num_bytes:
        raise WeightsError("the file of weights is cut off")
    return data


def _view(tensor: _Tensor, storage: NDArray[Any]) -> NDArray[Any]:
    last = tensor.offset + sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.strides, strict=True))
    if min((tensor.offset, *tensor.strides, *tensor.shape), default=0) < 0 or last >= len(storage):
        raise WeightsError("a tensor reaches beyond its storage")
    strides = [stride * storage.itemsize for stride in tensor.strides]
    return np.lib.stride_tricks.as_strided(storage[tensor.offset :], tensor.shape, strides).copy()


class _TensorUnpickler(pickle.Unpickler):
    """Unpickler that knows five names. It never imports or calls anything that a file names."""

    def __init__(self, file: BinaryIO) -> None:
        super().__init__(file)
        self.storages: dict[str, tuple[np.dtype[Any], int]] = {}

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return lambda key, offset, shape, strides, *_: _Tensor(key, offset, shape, strides)
        if module == "torch" and name in _DTYPES:
            return name
        raise WeightsError(f"The file of weights names {module}.{name}. Only tensors are read.")

    def persistent_load(self, pid: Any) -> str:
        _, storage_type, key, _, size, *_ = pid
        self.storages[str(key)] = (_DTYPES[storage_type], int(size))
        return str(key)
