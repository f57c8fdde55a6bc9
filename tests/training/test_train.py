"""The whole training, on drawn flowers: what is published, and what it is said to be."""

import json
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from support.fitting import RECIPE, tiny_network

from service.data.dataset import Dataset
from service.data.folder import read_folder
from service.engines.open_version import open_stored
from service.engines.wish import EngineWish
from service.errors import DeviceUnavailable, TrainingError
from service.evaluation.folder import evaluate_folder, find_differences
from service.imaging.limits import ImageLimits
from service.networks.alexnet import NETWORKS
from service.store.layout import METADATA_FILE, SPLIT_FILE
from service.store.metadata import read_metadata
from service.store.versions import list_candidates, list_stored, list_versions
from service.training import alexnet, cross_validation
from service.training import train as train_module
from service.training.distributed import Cluster
from service.training.gate import Verdict
from service.training.observer import Observer
from service.training.recipe import AlexNetRecipe
from service.training.run import Run, name_run, open_run
from service.training.train import Trained, list_devices, train

LIMITS = ImageLimits()
SHIFTED = replace(RECIPE, scale=1 / 100, offset=-0.75)


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(NETWORKS, "tiny", tiny_network)
    monkeypatch.setattr(alexnet, "MIN_EPOCH", 64)


class Listener(Observer):
    """Remembers what is said."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, sentence: str) -> None:
        self.said.append(sentence)


@contextmanager
def running(dataset: Dataset, folder: Path, recipe: AlexNetRecipe = SHIFTED, *, again: bool = False) -> Iterator[Run]:
    name = name_run("drawn", recipe, dataset, "cpu")
    with open_run(folder / "runs", name, model="drawn", store=folder / "store", device="cpu", again=again) as run:
        yield run


def trained(
    dataset: Dataset, folder: Path, recipe: AlexNetRecipe = SHIFTED, observer: Observer | None = None,
    take: bool | None = None,
) -> Trained:  # fmt: skip
    with running(dataset, folder, recipe) as run:
        result = train(dataset, recipe, run, observer or Observer(), take=take)
    assert result is not None
    return result


@pytest.mark.long
def test_the_metadata_state_what_was_trained_and_measured(dataset: Dataset, drawn_folder: Path, tmp_path: Path) -> None:
    result = trained(dataset, tmp_path)
    folder = tmp_path / "store" / "drawn" / "1"
    metadata = read_metadata(folder / METADATA_FILE)
    assert (metadata.preprocessing.scale, metadata.preprocessing.offset) == (1 / 100, -0.75)
    assert (metadata.network.name, metadata.data_digest) == ("tiny", dataset.check.digest)
    assert [metrics.part for metrics in metadata.metrics] == ["validation", "test"]
    assert metadata.recipe["epochs_done"] == 3
    stated = metadata.metrics[1]
    assert stated.num_photographs == len(dataset.split.photographs["test"])
    with closing(open_stored(tmp_path / "store", "drawn", EngineWish("savedmodel", "cpu"))) as local:
        # The digest of the split list is checked here.
        found = evaluate_folder(local, read_folder(drawn_folder), LIMITS, part="test")
        rule, calibrating = local.confident_rule, local.engine.run(np.asarray(dataset.squares("validation").images))
    assert rule.max_energy is not None
    doubts = [rule.doubt(float(row.max()), energy, distance) for row, energy, distance in calibrating.rows()]
    assert doubts.count(None) >= 0.95 * len(doubts)
    assert not find_differences(stated, found.evaluation)
    assert result.test.to_dict() == found.evaluation.to_dict()
    published = json.loads((result.run / "published.json").read_text(encoding="utf-8"))
    assert published["test"]["accuracy"] == stated.accuracy
    assert published["finished"] is True
    assert (result.run / "split.json").read_bytes() == (folder / SPLIT_FILE).read_bytes()


@pytest.mark.usefixtures("eager")
def test_the_chief_alone_writes_checkpoint_run_and_version(dataset: Dataset, tmp_path: Path) -> None:
    recipe, listener = replace(SHIFTED, schedule=replace(SHIFTED.schedule, epochs=1, batch_size=16)), Listener()
    run = Run(tmp_path / "run", "drawn", tmp_path / "store", "cpu", cluster=Cluster(1, 2))
    assert train(dataset, recipe, run, listener) is None
    assert listener.said == ["The training is done. The chief, process 0, publishes it."]
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


@pytest.mark.long
def test_a_finished_training_is_returned_as_it_is(dataset: Dataset, tmp_path: Path) -> None:
    first, listener = trained(dataset, tmp_path), Listener()
    assert first.verdict == Verdict(True, "It is the first version of drawn that can be served.")
    again = trained(dataset, tmp_path, observer=listener)
    (said,) = listener.said
    assert said.startswith("This training is finished already: it made version 1 of drawn")
    assert said.endswith("Give --again to train it anew.")
    assert (again.version, again.run, again.history) == (1, first.run, first.history)
    assert again.test.to_dict() == first.test.to_dict()
    assert (again.mistakes, again.report) == (first.mistakes, first.run / "report.html")
    assert len(first.mistakes) == min(3, first.test.num_photographs - first.test.num_correct) > 0
    assert list_versions(tmp_path / "store", "drawn") == [1]
    (first.run / "history.json").write_text("[")
    with pytest.raises(TrainingError, match="Train it anew with --again"):
        trained(dataset, tmp_path)


@pytest.mark.long
def test_without_tensorflow_a_training_ends_after_fit_and_resumes(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe, listener = replace(SHIFTED, num_folds=2), Listener()
    monkeypatch.setattr(train_module, "can_export", lambda: False)
    with running(dataset, tmp_path, recipe) as run:
        assert train(dataset, recipe, run, listener) is None
        assert "`flowers train`" in listener.said[-1]
        assert str(run.folder) in listener.said[-1]
    assert not list_stored(tmp_path / "store", "drawn")
    monkeypatch.undo()
    monkeypatch.setitem(NETWORKS, "tiny", tiny_network)
    monkeypatch.setattr(alexnet, "MIN_EPOCH", 64)

    class Unwilling(Observer):
        def step(self, *_: float) -> None:
            raise AssertionError("trained again")

    result = trained(dataset, tmp_path, recipe, Unwilling())
    assert (result.version, result.run) == (1, run.folder)
    metadata = read_metadata(tmp_path / "store" / "drawn" / "1" / METADATA_FILE)
    assert metadata.metrics[0].part == "cross-validation"
    assert metadata.recipe["folds"] == 2


class Published(Exception):
    """The files of a version would now be written."""


def parts_seen(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Parts in the order in which their pixels are asked for."""
    seen: list[str] = []
    for name in ("full_images", "squares"):
        real = getattr(Dataset, name)

        def watched(dataset: Dataset, *parts: Any, real: Any = real) -> Any:
            seen.extend(parts)
            return real(dataset, *parts)

        monkeypatch.setattr(Dataset, name, watched)
    return seen


def test_the_test_part_is_not_seen_before_the_end(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = parts_seen(monkeypatch)

    def publish(trained: Any, *_: object, **__: object) -> None:
        assert trained.held_out is dataset.squares("validation")
        raise Published

    monkeypatch.setattr(train_module, "publish_network", publish)
    with pytest.raises(Published):
        trained(dataset, tmp_path)
    assert set(seen) == {"train", "validation"}


@pytest.mark.long
@pytest.mark.parametrize("error", [ValueError("a $ too many"), KeyboardInterrupt()], ids=repr)
def test_a_report_that_fails_fails_no_training(
    error: BaseException, dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr("service.training.run.draw_curves", fail)
    listener = Listener()
    result = trained(dataset, tmp_path, observer=listener, take=False)
    assert (result.version, result.verdict) == (1, Verdict(False, "--no-take was given."))
    assert [stored.version for stored in list_candidates(tmp_path / "store", "drawn")] == [1]
    assert not list_stored(tmp_path / "store", "drawn")
    (sentence,) = listener.said
    assert "is published, but its report" in sentence
    assert "`flowers evaluate FOLDER --report FILE` writes another" in sentence


def test_a_recipe_with_folds_is_cross_validated(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders: list[str] = []

    def fit(dataset: Dataset, recipe: AlexNetRecipe, run: Run, *_: object, **__: object) -> None:
        folders.append(run.folder.name)
        raise Published

    monkeypatch.setattr(cross_validation, "fit_alexnet", fit)
    recipe = replace(SHIFTED, num_folds=2)
    with running(dataset, tmp_path, recipe) as run, pytest.raises(Published):
        train(dataset, recipe, run, Observer())
    assert folders == ["whole"]


def test_devices_are_those_that_keras_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keras.distribution, "list_devices", lambda: ["cpu:0"])
    assert (list_devices("auto"), list_devices("cpu")) == (["cpu"], ["cpu"])
    with pytest.raises(DeviceUnavailable, match="No GPU"):
        list_devices("gpu")
    monkeypatch.setattr(keras.distribution, "list_devices", lambda: ["gpu:0"])
    assert (list_devices("auto"), list_devices("gpu")) == (["gpu", "cpu"], ["gpu"])
