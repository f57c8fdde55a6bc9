from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.fitting import RECIPE, tiny_network

from service.data.batches import LabelledPixels
from service.data.dataset import Dataset
from service.errors import DatasetError
from service.networks.alexnet import NETWORKS
from service.training import alexnet, cross_validation
from service.training.alexnet import answer
from service.training.checkpoint import Epoch
from service.training.cross_validation import assign_folds, cross_validate, mean_epoch
from service.training.observer import Observer
from service.training.run import Run

pytestmark = pytest.mark.usefixtures("eager")
FOLDED = replace(RECIPE, num_folds=4, schedule=replace(RECIPE.schedule, epochs=2, batch_size=20))


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(NETWORKS, "tiny", tiny_network)
    monkeypatch.setattr(alexnet, "MIN_EPOCH", 1)


def test_near_duplicates_are_in_one_fold(dataset: Dataset) -> None:
    known = [*dataset.split.photographs["train"], *dataset.split.photographs["validation"]]
    folds = assign_folds(dataset, 4)
    assert len(folds) == len(known)
    first, second = next((a, b) for a in range(20) for b in range(20) if folds[a] < folds[b])
    alike = replace(known[second], perceptual_hash=known[first].perceptual_hash, label=known[first].label)
    known[second] = alike
    check = replace(dataset.check, photographs=tuple(sorted(known, key=lambda one: (one.label, one.path.name))))
    split = replace(dataset.split, photographs={**dataset.split.photographs, "train": tuple(known), "validation": ()})
    again = assign_folds(replace(dataset, check=check, split=split), 4)
    assert again[second] == again[first]


def test_too_few_photographs_for_the_folds_are_refused(dataset: Dataset, tmp_path: Path) -> None:
    run = Run(tmp_path / "run", "drawn", tmp_path / "store", "cpu")
    with pytest.raises(DatasetError, match="too few for 500 folds"):
        cross_validate(dataset, replace(FOLDED, num_folds=500), run, Observer())


def test_each_fold_is_answered_by_a_network_without_it(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    learned: list[set[int]] = []
    asked: list[LabelledPixels] = []
    fit = alexnet.fit_alexnet

    def watched(*given: Any, **named: Any) -> alexnet.FittedAlexNet:
        learned.append({id(image) for image in given[4].images})
        asked.append(given[5])
        return fit(*given, **named)

    monkeypatch.setattr(cross_validation, "fit_alexnet", watched)
    run = Run(tmp_path / "run", "drawn", tmp_path / "store", "cpu")
    run.make()
    trained = cross_validate(dataset, FOLDED, run, Observer())

    known = dataset.full_images("train", "validation")
    folds = np.array(assign_folds(dataset, 4))
    whole, *others = learned
    assert whole == {id(image) for image in known.images}
    for fold, own in enumerate(others):
        assert own == {id(known.images[place]) for place in np.flatnonzero(folds != fold).tolist()}
        np.testing.assert_array_equal(asked[fold + 1].class_indices, known.class_indices[folds == fold])
    assert asked[0] is None
    assert trained.calibration.part == "cross-validation"
    np.testing.assert_array_equal(
        trained.calibration.class_indices, np.concatenate([squares.class_indices for squares in asked[1:]])
    )
    assert trained.held_out is dataset.squares("test")
    assert (trained.recipe_values["folds"], trained.recipe_values["epochs_done"]) == (4, 2)
    assert trained.recipe_values["teacher_accuracy"] is None
    assert [epoch.epoch for epoch in trained.history] == [0, 1]

    again = cross_validate(dataset, FOLDED, run, Unwilling())
    squares = dataset.squares("test")
    np.testing.assert_array_equal(answer(again.network, FOLDED, squares), answer(trained.network, FOLDED, squares))
    assert again.calibration.temperature == trained.calibration.temperature


class Unwilling(Observer):
    """Fails where anything is trained."""

    def step(self, *_: float) -> None:
        raise AssertionError("trained again")


class Interrupter(Observer):
    """Presses Ctrl-C in the second epoch."""

    def step(self, epoch: int, *_: float) -> None:
        if epoch == 1:
            raise KeyboardInterrupt


def test_ctrl_c_ends_a_cross_validation(dataset: Dataset, tmp_path: Path) -> None:
    run = Run(tmp_path / "run", "drawn", tmp_path / "store", "cpu")
    with pytest.raises(KeyboardInterrupt):
        cross_validate(dataset, FOLDED, run, Interrupter())
    assert (tmp_path / "run" / "whole" / "checkpoint.npz").exists()
    assert not (tmp_path / "run" / "fold-0").exists()


def test_the_mean_of_an_epoch_is_of_its_figures() -> None:
    one = Epoch(4, 1.0, 0.5, 1.0, 0.25, 1e-3, 2.0, 10.0)
    assert mean_epoch([one, replace(one, loss=3.0, validation_accuracy=0.75)]) == replace(
        one, loss=2.0, validation_accuracy=0.5
    )
