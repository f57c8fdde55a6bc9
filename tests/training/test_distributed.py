"""Training by several processes, on loopback."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.clusters import fit_shared, start_cluster
from support.fitting import RECIPE, TRANSFER, learning_network

from service.errors import SettingsError
from service.training.checkpoint import Checkpoint, load_checkpoint
from service.training.distributed import ALONE, Cluster, open_cluster
from service.training.recipe import Recipe, Teaching

TWO: dict[str, Any] = {
    "cluster": {"worker": ["127.0.0.1:1", "127.0.0.1:2"]},
    "task": {"type": "worker", "index": 0},
}


def finish(*arguments: object) -> list[list[np.ndarray]]:
    """The weights that each process of a cluster ends with."""
    processes = start_cluster(*arguments)  # type: ignore[arg-type]
    answers = [process.communicate(timeout=200) for process in processes]
    assert [process.returncode for process in processes] == [0] * len(processes), answers
    return [[np.array(weight) for weight in json.loads(text)] for text, _ in answers]


def read(path: Path) -> Checkpoint:
    checkpoint = load_checkpoint(path)
    assert checkpoint is not None
    return checkpoint


@pytest.mark.parametrize(
    "tf_config",
    [
        None,
        {"cluster": {"worker": ["127.0.0.1:1"]}, "task": {"type": "worker", "index": 0}},
        {"cluster": {"chief": ["127.0.0.1:1"]}, "task": {"type": "chief", "index": 0}},
    ],
)
def test_one_process_is_no_cluster(tf_config: dict[str, Any] | None) -> None:
    assert open_cluster(json.dumps(tf_config) if tf_config else None, TRANSFER) is ALONE


@pytest.mark.parametrize(
    "tf_config",
    [
        "",
        "[]",
        json.dumps({**TWO, "task": {"type": "worker", "index": 2}}),
        json.dumps({**TWO, "task": {"type": "ps", "index": 0}}),
        json.dumps({**TWO, "cluster": {**TWO["cluster"], "ps": ["127.0.0.1:3"]}}),
        json.dumps({"cluster": TWO["cluster"]}),
    ],
)
def test_a_wrong_tf_config_is_refused(tf_config: str) -> None:
    with pytest.raises(SettingsError, match=r"TF_CONFIG .* expected to look like .* unset it"):
        open_cluster(tf_config, RECIPE)


@pytest.mark.parametrize(
    ("recipe", "is_budgeted", "remedy"),
    [
        (TRANSFER, False, "The recipe test computes features"),
        (replace(RECIPE, teaching=Teaching("efficientnet_lite0")), False, "--teacher none"),
        (RECIPE, True, "Give --epochs"),
    ],
)
def test_what_only_one_process_can_train_is_refused(recipe: Recipe, is_budgeted: bool, remedy: str) -> None:
    with pytest.raises(SettingsError, match=f"lists 2 processes.*{remedy}"):
        open_cluster(json.dumps(TWO), recipe, is_budgeted=is_budgeted)


@pytest.mark.parametrize(("batch_size", "remedy"), [(32, 30), (2, 3)])
def test_a_batch_without_equal_shares_is_refused(batch_size: int, remedy: int) -> None:
    with pytest.raises(SettingsError, match=f"--batch-size {remedy}\\."):
        Cluster(0, 3, strategy=object()).make_step(learning_network(), batch_size)


@pytest.mark.long
def test_two_processes_follow_the_losses_of_one(tmp_path: Path) -> None:
    _, alone = fit_shared(tmp_path / "alone.npz", 0.0)
    chief, other = finish([tmp_path / "both.npz"] * 2, 0.0)
    for weight, same in zip(chief, other, strict=True):
        np.testing.assert_array_equal(weight, same)
    both = read(tmp_path / "both.npz").history
    np.testing.assert_allclose([row.loss for row in both], [row.loss for row in alone.history], atol=1e-4)
    assert [row.accuracy for row in both] == [row.accuracy for row in alone.history]


@pytest.mark.long
@pytest.mark.parametrize("killed", [0, 1])
def test_a_killed_process_restarts_to_the_same_end(tmp_path: Path, killed: int) -> None:
    finish([tmp_path / "whole.npz"] * 2, 0.2)
    processes = start_cluster([tmp_path / "killed.npz"] * 2, 0.2, "1")
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "half\n"
    processes[killed].kill()
    processes[killed].communicate()
    _, complaint = processes[1 - killed].communicate(timeout=100)
    assert processes[1 - killed].returncode == 1
    assert "Another process of this training has ended" in complaint
    assert read(tmp_path / "killed.npz").num_done == 1

    finish([tmp_path / "killed.npz"] * 2, 0.2)

    whole, resumed = read(tmp_path / "whole.npz"), read(tmp_path / "killed.npz")
    for value, same in zip([*resumed.state, *resumed.best], [*whole.state, *whole.best], strict=True):
        np.testing.assert_array_equal(value, same)


@pytest.mark.long
def test_processes_that_see_different_checkpoints_end(tmp_path: Path) -> None:
    fit_shared(tmp_path / "done.npz", 0.0)
    processes = start_cluster([tmp_path / "done.npz", tmp_path / "none.npz"], 0.0)
    answers = [process.communicate(timeout=200) for process in processes]
    assert [process.returncode for process in processes] == [1, 1]
    assert "One run folder for all was expected" in answers[0][1]
