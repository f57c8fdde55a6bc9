from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.fitting import RECIPE, tiny_network

from service.data.batches import LabelledPixels
from service.data.dataset import Dataset, open_dataset
from service.data.folder import read_folder
from service.imaging.limits import ImageLimits
from service.networks.alexnet import NETWORKS
from service.training import alexnet
from service.training.alexnet import FittedAlexNet, answer, fit_alexnet, train_alexnet
from service.training.checkpoint import Epoch, load_checkpoint
from service.training.observer import Observer
from service.training.run import Run
from service.training.schedule import Schedule

STILL = replace(RECIPE, batch_norm=False, schedule=Schedule(epochs=1, batch_size=32, learning_rate=0.0))


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(NETWORKS, "tiny", tiny_network)
    monkeypatch.setattr(alexnet, "MIN_EPOCH", 64)


def dataset_of(folder: Path, seed: int = 2) -> Dataset:
    return open_dataset(read_folder(folder), seed, ImageLimits())


def run_in(folder: Path) -> Run:
    return Run(folder / "run", "drawn", folder / "store", "cpu")


@pytest.mark.long
def test_the_seed_changes_the_initial_weights(drawn_folder: Path, tmp_path: Path) -> None:
    kernels = []
    for number, seed in enumerate((2, 2, 3)):
        dataset = replace(dataset_of(drawn_folder), split=replace(dataset_of(drawn_folder).split, seed=seed))
        photographs = dataset.full_images("validation")
        run = run_in(tmp_path / str(number))
        fitted = fit_alexnet(dataset, STILL, run, Observer(), photographs, None)
        kernels.append(fitted.network.get_layer("dense6").get_weights()[0])
    np.testing.assert_array_equal(kernels[0], kernels[1])
    assert not np.array_equal(kernels[0], kernels[2])


def test_the_network_that_is_left_is_plain(drawn_folder: Path, tmp_path: Path) -> None:
    dataset = dataset_of(drawn_folder)
    validation = dataset.squares("validation")
    fitted = fit_alexnet(dataset, RECIPE, run_in(tmp_path), Observer(), dataset.full_images("train"), validation)
    assert fitted.network.count_params() == tiny_network(5).count_params()
    accuracy = (answer(fitted.network, RECIPE, validation).argmax(axis=1) == validation.class_indices).mean()
    assert accuracy == pytest.approx(max(epoch.validation_accuracy or 0 for epoch in fitted.history), abs=0.02)
    assert fitted.teacher_accuracy is None


class Spy(Observer):
    """Photographs that each network has learned and was validated on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.learned: list[LabelledPixels] = []
        self.validated: list[LabelledPixels | None] = []
        self.said: list[str] = []
        fit = alexnet.fit_alexnet

        def watched(*given: Any, **named: Any) -> FittedAlexNet:
            self.learned.append(given[4])
            self.validated.append(given[5])
            return fit(*given, **named)

        monkeypatch.setattr(alexnet, "fit_alexnet", watched)

    def say(self, sentence: str) -> None:
        self.said.append(sentence)


def test_no_network_learns_what_chooses_and_calibrates_it(
    drawn_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset, spy = dataset_of(drawn_folder), Spy(monkeypatch)
    trained = train_alexnet(dataset, replace(RECIPE, refit=True), run_in(tmp_path), spy)
    parts = {part: len(photographs) for part, photographs in dataset.split.photographs.items()}
    train, validation, test = (dataset.full_images(part) for part in ("train", "validation", "test"))
    first, second = ({id(image) for image in learned.images} for learned in spy.learned)
    assert first == {id(image) for image in train.images}
    assert second == first | {id(image) for image in validation.images}
    assert len(first) == parts["train"]
    assert not second & {id(image) for image in test.images}
    assert spy.validated == [dataset.squares("validation"), None]
    assert trained.calibration.part == "validation"
    np.testing.assert_array_equal(trained.calibration.class_indices, dataset.squares("validation").class_indices)
    assert trained.held_out is dataset.squares("test"), "the second network has not learned these"
    assert trained.recipe_values["refit"] is True
    assert trained.is_finished
    (of_the_second,) = spy.said
    assert "A second one now learns from training and validation photographs together" in of_the_second


@pytest.mark.long
def test_the_calibration_is_that_of_the_first_network(drawn_folder: Path, tmp_path: Path) -> None:
    dataset = dataset_of(drawn_folder)
    trained = train_alexnet(dataset, replace(RECIPE, refit=True), run_in(tmp_path), Observer())
    first = load_checkpoint(tmp_path / "run" / "checkpoint.npz")
    second = load_checkpoint(tmp_path / "run" / "refit" / "checkpoint.npz")
    assert first is not None
    assert second is not None
    assert second.history[0].validation_accuracy is None
    best = max(epoch.validation_accuracy or 0 for epoch in first.history)
    calibration = trained.calibration
    stated = (calibration.probabilities.argmax(axis=1) == calibration.class_indices).mean()
    assert stated == pytest.approx(best, abs=0.02)
    np.testing.assert_array_equal(trained.network.get_layer("logits").get_weights()[0], second.best[-2])


class Interrupter(Observer):
    """Presses Ctrl-C in an epoch of one of the networks."""

    def __init__(self, network: int, epoch: int) -> None:
        self._network, self._epoch = network, epoch
        self._num_networks = 0
        self.said: list[str] = []

    def say(self, sentence: str) -> None:
        self.said.append(sentence)

    def step(self, epoch: int, step: int, *_: float) -> None:
        self._num_networks += (epoch, step) == (0, 1)
        if (self._num_networks, epoch) == (self._network, self._epoch):
            raise KeyboardInterrupt


@pytest.mark.long
@pytest.mark.parametrize("epoch", [0, 1])
def test_ctrl_c_during_the_refit_keeps_the_first_network(epoch: int, drawn_folder: Path, tmp_path: Path) -> None:
    recipe, interrupter = replace(RECIPE, refit=True), Interrupter(2, epoch)
    trained = train_alexnet(dataset_of(drawn_folder), recipe, run_in(tmp_path), interrupter)
    first = load_checkpoint(tmp_path / "run" / "checkpoint.npz")
    assert first is not None
    np.testing.assert_array_equal(trained.network.get_layer("logits").get_weights()[0], first.best[-2])
    assert trained.recipe_values["refit"] is False
    assert not trained.is_finished, "the same command goes on with the second network"
    assert not trained.interrupted
    assert interrupter.said[-1].startswith(f"Interrupted. The first network is published. {tmp_path / 'run'} keeps 3 ")


def test_ctrl_c_in_the_first_network_begins_no_second(drawn_folder: Path, tmp_path: Path) -> None:
    recipe, interrupter = replace(RECIPE, refit=True), Interrupter(1, 1)
    trained = train_alexnet(dataset_of(drawn_folder), recipe, run_in(tmp_path), interrupter)
    assert interrupter.said == [
        f"Interrupted after 1 of 3 epochs. The best is published. {tmp_path / 'run'} keeps all of them, "
        "and the same command goes on."
    ]
    assert trained.interrupted
    assert not trained.is_finished
    assert not (tmp_path / "run" / "refit").exists()


def test_an_epoch_repeats_a_small_folder(drawn_folder: Path, tmp_path: Path) -> None:
    steps: list[int] = []

    class Counter(Observer):
        def step(self, epoch: int, step: int, num_steps: int, *_: float) -> None:
            steps.append(num_steps)

        def epoch(self, result: Epoch) -> None:
            raise KeyboardInterrupt

    dataset = dataset_of(drawn_folder)
    recipe = replace(STILL, schedule=replace(STILL.schedule, batch_size=8))
    photographs = dataset.full_images("train")
    fit_alexnet(dataset, recipe, run_in(tmp_path), Counter(), photographs, None)
    assert set(steps) == {2 * len(photographs.images) // 8}
