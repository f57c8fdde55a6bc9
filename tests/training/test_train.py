"""The whole training, on drawn flowers: what is published, and what it is said to be."""

import json
from dataclasses import replace
from pathlib import Path
from unittest.mock import MagicMock, Mock

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from service.data.check import DataCheck
from service.data.split import Split
from service.evaluation.metrics import evaluate
from service.store.layout import METADATA_FILE
from service.store.metadata import read_metadata
from service.store.versions import list_versions
from service.training.checkpoint import Epoch, load_checkpoint
from service.training.recipe import find_recipe
from service.training.train import publish_network, train


class Silent:
    def __init__(self) -> None:
        self.said: list[str] = []

    def checking(self, done: int, total: int) -> None: ...
    def found(self, check: DataCheck) -> None: ...
    def checked(self, check: DataCheck, split: Split) -> None: ...
    def teaching(self, what: str, done: int, total: int) -> None: ...
    def taught(self, teacher: str, accuracy: float | None) -> None: ...
    def stage(self, name: str) -> None: ...
    def step(
        self, epoch: int, step: int, num_steps: int, loss: float, accuracy: float, images_per_s: float
    ) -> None: ...
    def epoch(self, result: Epoch) -> None: ...
    def say(self, sentence: str) -> None:
        self.said.append(sentence)


@pytest.fixture
def short_epochs(monkeypatch: pytest.MonkeyPatch) -> None:
    """A few steps of one, too, tell the two networks apart."""
    monkeypatch.setattr("service.training.train._MIN_EPOCH", 256)


@pytest.mark.long
@pytest.mark.usefixtures("short_epochs")
def test_a_refit_learns_from_both_parts_and_keeps_the_calibration_of_the_first(
    drawn_folder: Path, tmp_path: Path
) -> None:
    recipe, observer = (
        replace(find_recipe("default"), epochs=1, teacher="none", refit=True, precision="float32"),
        Silent(),
    )
    trained = train(
        drawn_folder, "drawn", recipe,
        seed=2, device="cpu", store=tmp_path / "store", runs=tmp_path / "runs", observer=observer,
    )  # fmt: skip
    (of_the_second,) = observer.said
    assert "A second one now learns from training and validation photographs together" in of_the_second
    first, second = (load_checkpoint(path / "checkpoint.npz") for path in (trained.run, trained.run / "refit"))
    assert first is not None
    assert second is not None
    assert first[0][0].validation_accuracy is not None
    assert second[0][0].validation_accuracy is None  # nothing was kept back to validate on

    version = tmp_path / "store" / "drawn" / "1"
    reader = tf.train.load_checkpoint(str(version / "variables" / "variables"))
    shapes = reader.get_variable_to_shape_map()
    (bias,) = [reader.get_tensor(name) for name, shape in shapes.items() if shape == [5] and "VARIABLE_VALUE" in name]
    logits_bias = [[values for values in best if values.shape == (5,)] for _, _, best in (first, second)]
    np.testing.assert_array_equal(bias, logits_bias[1][0])  # the second network is the one that is published
    assert not np.array_equal(bias, logits_bias[0][0])

    metadata = read_metadata(version / METADATA_FILE)
    assert metadata.recipe["refit"] is True
    stated = {metrics.part: metrics for metrics in metadata.metrics}
    # On the validation part the first network was measured: the second has seen it.
    assert stated["validation"].accuracy == pytest.approx(first[0][0].validation_accuracy, abs=0.02)
    published = json.loads((trained.run / "published.json").read_text(encoding="utf-8"))
    assert published["test"]["accuracy"] == stated["test"].accuracy == trained.test.accuracy

    again = train(
        drawn_folder, "drawn", recipe,
        seed=2, device="cpu", store=tmp_path / "store", runs=tmp_path / "runs", observer=observer,
    )  # fmt: skip
    assert observer.said[1].startswith("This training is finished already: it published version 1 of drawn")
    assert observer.said[1].endswith("Give --again to train it anew.")
    assert (again.version, again.run, again.history) == (1, trained.run, trained.history)
    assert again.test.to_dict() == trained.test.to_dict()
    assert list_versions(tmp_path / "store", "drawn") == [1]


class Leaving(Silent):
    """Goes as soon as the run folder is there."""

    def stage(self, name: str) -> None:
        raise KeyboardInterrupt


def test_a_folder_split_by_sequence_has_a_run_of_its_own_once_its_files_are_renamed(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    scene = random.integers(30, 220, (48, 64, 3))
    frames = [Image.fromarray((scene + random.normal(0, 4, scene.shape)).astype(np.uint8)) for _ in range(20)]
    for folder, names in (("one", range(20)), ("two", range(20, 0, -1))):
        for number, (name, frame) in enumerate(zip(names, frames, strict=True)):
            path = tmp_path / folder / "ab"[number % 2] / f"{name}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            frame.save(path)
    recipe = replace(find_recipe("default"), epochs=1, teacher="none")
    for folder, num_runs in (("one", 1), ("one", 1), ("two", 2)):
        with pytest.raises(KeyboardInterrupt):
            train(
                tmp_path / folder, "bench", recipe,
                seed=2, device="cpu", store=tmp_path / "store", runs=tmp_path / "runs", observer=Leaving(),
            )  # fmt: skip
        assert len(list((tmp_path / "runs").iterdir())) == num_runs


class Impatient(Silent):
    """Presses Ctrl-C as soon as a second network learns."""

    num_epochs = 0

    def epoch(self, result: Epoch) -> None:
        self.num_epochs += 1

    def step(self, *_: object) -> None:
        if self.num_epochs:
            raise KeyboardInterrupt


@pytest.mark.long
@pytest.mark.usefixtures("short_epochs")
def test_who_does_not_wait_for_the_refit_gets_the_first_network(drawn_folder: Path, tmp_path: Path) -> None:
    recipe = replace(find_recipe("default"), epochs=1, teacher="none", refit=True, precision="float32")
    trained = train(
        drawn_folder, "drawn", recipe,
        seed=2, device="cpu", store=tmp_path / "store", runs=tmp_path / "runs", observer=Impatient(),
    )  # fmt: skip
    assert load_checkpoint(trained.run / "refit" / "checkpoint.npz") is None
    metadata = read_metadata(tmp_path / "store" / "drawn" / "1" / METADATA_FILE)
    assert {metrics.part for metrics in metadata.metrics} == {"validation", "test"}
    assert metadata.recipe["refit"] is False
    published = json.loads((trained.run / "published.json").read_text(encoding="utf-8"))
    assert published["finished"] is False, "the same command goes on with the second network"


@pytest.mark.parametrize("error", [ValueError("a $ too many"), KeyboardInterrupt()], ids=repr)
def test_a_report_that_fails_fails_no_training(
    error: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluation = evaluate(np.eye(2, dtype=np.float32), np.arange(2), ["daisy", "roses"])
    measured = Mock(evaluation=evaluation)
    monkeypatch.setattr("service.training.train.publish_version", MagicMock())
    monkeypatch.setattr("service.training.train.write_version", Mock(return_value=measured))
    monkeypatch.setattr("service.training.train.write_published", Mock(side_effect=error))
    said: list[str] = []
    _, test = publish_network(Mock(), tmp_path, tmp_path, [], say=said.append)
    assert test is evaluation
    (sentence,) = said
    assert "is published, but its report" in sentence
    assert "`flowers evaluate FOLDER --report FILE` writes another" in sentence
