"""The files are put together from opcodes here: what PyTorch 1.5 wrote, without PyTorch."""

import pickle
from pathlib import Path

import numpy as np
import pytest

from service.errors import WeightsError
from service.networks.pytorch_file import read_pytorch_weights

MAGIC_NUMBER = 0x1950A86A20F9469CFC6C


def opcodes(value: object) -> bytes:
    """The instructions that put `value` on the stack."""
    return pickle.dumps(value, 2)[2:-1]


def look_up(module: str, name: str) -> bytes:
    return pickle.GLOBAL + f"{module}\n{name}\n".encode()


def tensor(
    key: str,
    size: int,
    shape: tuple[int, ...],
    strides: tuple[int, ...],
    offset: int = 0,
    storage: str = "FloatStorage",
) -> bytes:
    persistent_id = pickle.MARK + opcodes("storage") + look_up("torch", storage)
    persistent_id += opcodes(key) + opcodes("cpu") + opcodes(size) + opcodes(None) + pickle.TUPLE + pickle.BINPERSID
    arguments = pickle.MARK + persistent_id + opcodes(offset) + opcodes(shape) + opcodes(strides) + opcodes(False)
    arguments += look_up("collections", "OrderedDict") + pickle.EMPTY_TUPLE + pickle.REDUCE + pickle.TUPLE
    return look_up("torch._utils", "_rebuild_tensor_v2") + arguments + pickle.REDUCE


def weights_file(tensors: dict[str, bytes], storages: dict[str, np.ndarray], magic: int = MAGIC_NUMBER) -> bytes:
    head = [pickle.dumps(part, 2) for part in (magic, 1001, {"protocol_version": 1001, "little_endian": True})]
    items = b"".join(opcodes(name) + value for name, value in tensors.items())
    state = look_up("collections", "OrderedDict") + pickle.EMPTY_TUPLE + pickle.REDUCE
    state = pickle.PROTO + b"\x02" + state + pickle.MARK + items + pickle.SETITEMS + pickle.STOP
    raw = [len(values).to_bytes(8, "little") + values.tobytes() for values in storages.values()]
    return b"".join([*head, state, pickle.dumps(list(storages), 2), *raw])


NUMBERS = np.arange(12, dtype="<f4")
PLAIN = weights_file({"weight": tensor("7", 12, (3, 4), (4, 1))}, {"7": NUMBERS})


def read(data: bytes, folder: Path) -> dict[str, np.ndarray]:
    (folder / "weights.pth").write_bytes(data)
    return read_pytorch_weights(folder / "weights.pth")


def test_tensors_come_with_their_shapes_offsets_and_strides(tmp_path: Path) -> None:
    tensors = {
        "plain": tensor("7", 12, (3, 4), (4, 1)),
        "transposed": tensor("8", 12, (4, 3), (1, 4)),
        "part": tensor("9", 12, (2,), (3,), offset=5),
        "count": tensor("10", 1, (), (), storage="LongStorage"),
    }
    storages = {"7": NUMBERS, "8": NUMBERS, "9": NUMBERS, "10": np.array([42], "<i8")}
    weights = read(weights_file(tensors, storages), tmp_path)
    assert list(weights) == list(tensors)
    np.testing.assert_array_equal(weights["plain"], NUMBERS.reshape(3, 4))
    np.testing.assert_array_equal(weights["transposed"], NUMBERS.reshape(3, 4).T)
    np.testing.assert_array_equal(weights["part"], [5, 8])
    assert weights["count"] == 42


def test_what_a_file_names_is_never_run(tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    hostile = look_up("pathlib", "Path.touch") + pickle.MARK + opcodes(str(marker)) + pickle.TUPLE + pickle.REDUCE
    with pytest.raises(WeightsError, match="Only tensors"):
        read(weights_file({"weight": hostile}, {}), tmp_path)
    system = look_up("os", "system") + pickle.MARK + opcodes(f"touch {marker}") + pickle.TUPLE + pickle.REDUCE
    with pytest.raises(WeightsError, match="Only tensors"):
        read(pickle.PROTO + b"\x02" + system + pickle.STOP, tmp_path)
    assert not marker.exists()


@pytest.mark.parametrize(
    ("shape", "strides", "offset"), [((3, 5), (5, 1), 0), ((12,), (1,), 1), ((2,), (-1,), 5), ((2,), (1,), -1)]
)
def test_a_tensor_beyond_its_storage_is_refused(
    shape: tuple[int, ...], strides: tuple[int, ...], offset: int, tmp_path: Path
) -> None:
    with pytest.raises(WeightsError, match="beyond"):
        read(weights_file({"weight": tensor("7", 12, shape, strides, offset)}, {"7": NUMBERS}), tmp_path)


@pytest.mark.parametrize("length", [0, 1, 40, len(PLAIN) - 49, len(PLAIN) - 1])
def test_a_file_cut_off_anywhere_is_refused(length: int, tmp_path: Path) -> None:
    with pytest.raises(WeightsError):
        read(PLAIN[:length], tmp_path)


def test_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"before PyTorch 1\.6"):
        read(weights_file({}, {}, magic=7), tmp_path)
    with pytest.raises(WeightsError, match="no intact"):
        read(b"PK\x03\x04", tmp_path)
    with pytest.raises(WeightsError, match="cannot be read"):
        read_pytorch_weights(tmp_path / "missing.pth")


def test_a_storage_of_another_length_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="12 numbers"):
        read(weights_file({"weight": tensor("7", 11, (11,), (1,))}, {"7": NUMBERS}), tmp_path)
