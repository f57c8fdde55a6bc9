import errno
from pathlib import Path

import numpy as np
import pytest

from service.errors import TrainingError
from service.training.checkpoint import Epoch, Variables, load_checkpoint, save_checkpoint, write_arrays

EPOCH = Epoch(0, 1.5, 0.4, 1.4, 0.5, 1e-3, 12.0, 80.0)
STATE: Variables = [np.arange(6, dtype=np.float32).reshape(2, 3), np.array(7, np.int64)]
BEST: Variables = [np.full(4, 0.5, np.float32)]


def test_what_was_saved_is_loaded_to_the_bit(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "checkpoint.npz", [EPOCH], STATE, BEST)
    loaded = load_checkpoint(tmp_path / "checkpoint.npz")
    assert loaded is not None
    history, state, best = loaded
    assert history == [EPOCH]
    for value, copy in zip([*STATE, *BEST], [*state, *best], strict=True):
        np.testing.assert_array_equal(copy, value)
        assert copy.dtype == value.dtype


def test_no_checkpoint_yet_is_none(tmp_path: Path) -> None:
    assert load_checkpoint(tmp_path / "checkpoint.npz") is None


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"PK\x03\x04"])
def test_a_file_that_is_no_checkpoint_is_refused_with_a_remedy(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "checkpoint.npz").write_bytes(content)
    with pytest.raises(TrainingError, match="remove it"):
        load_checkpoint(tmp_path / "checkpoint.npz")


def test_a_folder_that_cannot_be_written_keeps_the_old_checkpoint(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "checkpoint.npz", [EPOCH], STATE, BEST)
    (tmp_path / "checkpoint.writing").mkdir()  # stands in the way of the draft, also for root
    with pytest.raises(TrainingError, match="could not be written"):
        save_checkpoint(tmp_path / "checkpoint.npz", [EPOCH, EPOCH], STATE, BEST)
    loaded = load_checkpoint(tmp_path / "checkpoint.npz")
    assert loaded is not None
    assert loaded[0] == [EPOCH]


def test_a_full_disk_keeps_no_half_of_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(TrainingError, match="No space left"):
        save_checkpoint(tmp_path / "checkpoint.npz", [EPOCH], STATE, BEST)
    with pytest.raises(OSError, match="No space left"):
        write_arrays(tmp_path / "lesson.npz", {})
    assert not list(tmp_path.iterdir())
