from pathlib import Path

import numpy as np

from service.training.checkpoint import Checkpoint, Epoch, save_checkpoint
from service.training.kept import Kept, describe_kept, find_kept
from service.training.run import Run

EPOCH = Epoch(0, 1.5, 0.4, None, None, 1e-3, 12.0, 80.0)


def save(path: Path) -> None:
    path.parent.mkdir(exist_ok=True)
    save_checkpoint(path, Checkpoint((EPOCH,), [np.zeros(2)], [np.zeros(2)]))


def test_an_empty_run_keeps_nothing(run: Run) -> None:
    assert find_kept(run) == Kept()
    assert describe_kept(run) == f"{run.folder} keeps no finished step yet. The same command begins anew."


def test_each_finished_step_is_kept(run: Run) -> None:
    save(run.folder / "teacher.npz")
    assert describe_kept(run) == f"{run.folder} keeps 1 epoch of the teacher. The same command goes on."
    for number in range(2):
        (run.folder / f"lesson-{number:02d}.npz").touch()
    assert find_kept(run) == Kept(teacher_epochs=1, views=2)
    assert "keeps the teacher and its answers to 2 views. The" in describe_kept(run)
    (run.folder / "lesson.npz").touch()
    save(run.checkpoint)
    save(run.sub("refit").checkpoint)
    said = "the teacher's answers and 1 epoch of the network, 1 epoch of the network (refit)"
    assert describe_kept(run) == f"{run.folder} keeps {said}. The same command goes on."


def test_a_damaged_checkpoint_keeps_nothing(run: Run) -> None:
    run.checkpoint.write_bytes(b"PK")
    assert find_kept(run) == Kept()


def test_features_so_far_are_kept(run: Run) -> None:
    (run.folder / "features" / "train").mkdir(parents=True)
    (run.folder / "features" / "train" / "0000000.npz").touch()
    assert describe_kept(run) == f"{run.folder} keeps the features so far. The same command goes on."
