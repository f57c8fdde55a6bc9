"""Summaries of run folders: finished, unfinished and damaged ones."""

import json
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from service.training.checkpoint import Checkpoint, Epoch, save_checkpoint
from service.training.run_list import RunSummary, list_runs

EPOCHS = tuple(Epoch(number, 1.0, 0.5, None, None, 1e-3, 12.5, 80.0) for number in range(4))
TEST = {"accuracy": 0.9, "accuracy_low": 0.85, "accuracy_high": 0.95}


def write_run(runs: Path, name: str, *, began_at: float = 0, **files: object) -> Path:
    """A run folder with `recipe.json`, `split.json` and more JSON files."""
    folder = runs / name
    folder.mkdir(parents=True)
    documents = {"recipe": {"name": "transfer"}, "split": {"photographs": [{}] * 7}, **files}
    for file, document in documents.items():
        (folder / f"{file}.json").write_text(json.dumps(document), encoding="utf-8")
    os.utime(folder / "recipe.json", (began_at, began_at))
    return folder


def test_a_finished_training_has_all_figures(tmp_path: Path) -> None:
    published = {"model": "garden", "version": 3, "finished": True, "test": TEST}
    write_run(tmp_path, "garden-1", history=[asdict(epoch) for epoch in EPOCHS], published=published)
    expected = RunSummary("garden-1", "garden", 3, "transfer", 7, 4, 0.9, 0.85, 0.95, 50.0, True)
    assert list_runs(tmp_path) == [expected]


def test_an_unfinished_training_has_the_epochs_of_its_checkpoint(tmp_path: Path) -> None:
    weights = [np.ones(3, np.float32)]
    save_checkpoint(write_run(tmp_path, "a") / "checkpoint.npz", Checkpoint(EPOCHS[:2], weights, weights))
    expected = RunSummary("a", None, None, "transfer", 7, 2, None, None, None, 25.0, False)
    assert list_runs(tmp_path) == [expected]


def test_an_interrupted_training_that_published_is_unfinished(tmp_path: Path) -> None:
    write_run(tmp_path, "a", published={"model": "garden", "version": 3, "finished": False, "test": TEST})
    (run,) = list_runs(tmp_path)
    assert (run.version, run.accuracy, run.num_epochs, run.is_finished) == (3, 0.9, None, False)


def test_the_oldest_training_comes_first(tmp_path: Path) -> None:
    for name, began_at in (("a", 300.0), ("b", 100.0), ("c", 200.0)):
        write_run(tmp_path, name, began_at=began_at)
    (tmp_path / "no run").mkdir()
    assert [run.run for run in list_runs(tmp_path)] == ["b", "c", "a"]
    assert list_runs(tmp_path / "missing") == []


@pytest.mark.parametrize("content", ["", "[]", "null", "{", '{"name": {}, "photographs": 3}', "[" * 50_000, "\udcff"])
def test_a_damaged_file_hides_no_other(tmp_path: Path, content: str) -> None:
    folder = write_run(tmp_path, "a", history=[{"epoch": 0, "seconds": 2.0}], published={"test": []})
    for file in ("split.json", "published.json"):
        (folder / file).write_bytes(content.encode("utf-8", "surrogateescape"))
    (folder / "checkpoint.npz").write_bytes(b"PK\3\4")
    (run,) = list_runs(tmp_path)
    assert (run.num_photographs, run.version, run.accuracy, run.is_finished) == (None, None, None, False)
    assert (run.recipe, run.num_epochs, run.seconds) == ("transfer", 1, 2.0)


def test_keras_is_not_imported() -> None:
    program = "import service.training.run_list, sys; sys.exit('keras' in sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True)
