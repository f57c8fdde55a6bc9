import errno
import io
import json
import zipfile
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

from service.errors import TrainingError
from service.training.checkpoint import (
    Checkpoint,
    Epoch,
    Variables,
    load_checkpoint,
    read_arrays,
    save_checkpoint,
    write_arrays,
)

EPOCH = Epoch(0, 1.5, 0.4, 1.4, 0.5, 1e-3, 12.0, 80.0)
STATE: Variables = [np.arange(6, dtype=np.float32).reshape(2, 3), np.array(7, np.int64)]
BEST: Variables = [np.full(4, 0.5, np.float32)]


def test_what_was_saved_is_loaded_to_the_bit(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "checkpoint.npz", Checkpoint((EPOCH,), STATE, BEST))
    loaded = load_checkpoint(tmp_path / "checkpoint.npz")
    assert loaded is not None
    assert loaded.history == (EPOCH,)
    for value, copy in zip([*STATE, *BEST], [*loaded.state, *loaded.best], strict=True):
        np.testing.assert_array_equal(copy, value)
        assert copy.dtype == value.dtype


def test_no_checkpoint_yet_is_none(tmp_path: Path) -> None:
    assert load_checkpoint(tmp_path / "checkpoint.npz") is None


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"PK\x03\x04"])
def test_another_file_is_refused_with_a_remedy(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "checkpoint.npz").write_bytes(content)
    with pytest.raises(TrainingError, match="Remove it"):
        load_checkpoint(tmp_path / "checkpoint.npz")


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "half of it": lambda data: data[: len(data) // 2],
    "packed in an unknown way": lambda data: flipped(data, 10, 1),
    "packed in a known way": lambda data: flipped(data, 10, 8),
    "said to be encrypted": lambda data: flipped(data, 8, 1),
    "said to be patched": lambda data: flipped(data, 8, 32),
    "of giant arrays": lambda data: with_sums(data.replace(b"(2, 3), }  ", b"(99999999,)}")),
    "a changed value": lambda data: data.replace(np.float32(0.5).tobytes(), np.float32(0.25).tobytes()),
}


def flipped(data: bytes, offset: int, bits: int) -> bytes:
    """The archive with bits of its first directory entry flipped."""
    place = data.index(b"PK\x01\x02") + offset
    return data[:place] + bytes([data[place] ^ bits]) + data[place + 1 :]


def with_sums(data: bytes) -> bytes:
    """The archive, packed again."""
    packed = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as archive, zipfile.ZipFile(packed, "w") as again:
        for info in archive.infolist():
            start = data.index(info.filename.encode(), info.header_offset) + len(info.filename)
            start = data.index(b"\x93NUMPY", start)
            again.writestr(info.filename, data[start : start + info.file_size])
    return packed.getvalue()


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_refused_with_a_remedy(damage: str, tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.npz"
    save_checkpoint(path, Checkpoint((EPOCH,), STATE, BEST))
    path.write_bytes(DAMAGES[damage](path.read_bytes()))
    with pytest.raises(TrainingError, match=r"checkpoint\.npz is damaged.* Remove it"):
        load_checkpoint(path)


def test_a_checkpoint_takes_no_more_memory_than_bytes(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "checkpoint.npz", state_0000=np.zeros(10_000_000, np.uint8))
    with pytest.raises(TrainingError, match="Remove it"):
        read_arrays(tmp_path / "checkpoint.npz")


@pytest.mark.parametrize(
    "history",
    ["", "5", "[5]", "[[]]", "[{}]", "[" * 5000, json.dumps([asdict(EPOCH) | {"loss": "low"}]),
     json.dumps([asdict(EPOCH) | {"loss": None}]), json.dumps([asdict(EPOCH) | {"epoch": 3}]),
     json.dumps([asdict(EPOCH), asdict(EPOCH)])],
)  # fmt: skip
def test_another_history_is_refused_with_a_remedy(history: str, tmp_path: Path) -> None:
    write_arrays(tmp_path / "checkpoint.npz", {"history": np.array(history), "state_0000": np.zeros(1)})
    with pytest.raises(TrainingError, match="Remove it"):
        load_checkpoint(tmp_path / "checkpoint.npz")


def test_an_unreadable_checkpoint_is_named_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "checkpoint.npz").mkdir()
    with pytest.raises(TrainingError, match="cannot be read: Is a directory"):
        load_checkpoint(tmp_path / "checkpoint.npz")


def test_an_unwritable_folder_keeps_the_old_checkpoint(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "checkpoint.npz", Checkpoint((EPOCH,), STATE, BEST))
    (tmp_path / "checkpoint.writing").mkdir()  # stands in the way of the draft, also for root
    with pytest.raises(TrainingError, match="could not be written"):
        save_checkpoint(tmp_path / "checkpoint.npz", Checkpoint((EPOCH, EPOCH), STATE, BEST))
    loaded = load_checkpoint(tmp_path / "checkpoint.npz")
    assert loaded is not None
    assert loaded.history == (EPOCH,)


def test_a_full_disk_keeps_no_half_of_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(TrainingError, match="No space left"):
        save_checkpoint(tmp_path / "checkpoint.npz", Checkpoint((EPOCH,), STATE, BEST))
    with pytest.raises(OSError, match="No space left"):
        write_arrays(tmp_path / "lesson.npz", {})
    assert not list(tmp_path.iterdir())


def test_a_finished_training_may_leave_out_epochs(tmp_path: Path) -> None:
    history = (replace(EPOCH, epoch=39), replace(EPOCH, epoch=79))
    save_checkpoint(tmp_path / "checkpoint.npz", Checkpoint(history, (), BEST))
    loaded = load_checkpoint(tmp_path / "checkpoint.npz")
    assert loaded is not None
    assert (loaded.history, loaded.num_done, list(loaded.state)) == (history, 80, [])
