"""The benchmarks of training still fit what they measure: their parts run on drawn photographs."""

import importlib
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from support.fitting import drawn_pixels

from service.networks.alexnet import NETWORKS

BENCHMARKS = Path(__file__).resolve().parent.parent.parent / "benchmarks"


@pytest.fixture(autouse=True)
def scripts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))  # they are run as files


@pytest.mark.parametrize("num_views", [0, 2])
def test_the_timed_batches_are_those_of_a_training(num_views: int) -> None:
    training = importlib.import_module("benchmarks.training")
    batches = list(islice(training.forever(drawn_pixels(0, 8), num_views), 3))
    for images, labels in batches:
        assert (images.shape, images.dtype) == ((training.BATCH_SIZE, 224, 224, 3), np.uint8)
        np.testing.assert_array_equal(labels.sum(axis=1), 1)
    assert not np.array_equal(batches[0][0], batches[1][0])


def test_every_rung_of_the_ladder_is_a_recipe() -> None:
    accuracy = importlib.import_module("benchmarks.accuracy")
    recipes = [accuracy.recipe_of(rung.name) for rung in accuracy.LADDER]
    assert len(recipes) <= 10
    assert all(recipe.schedule.epochs == accuracy.EPOCHS and recipe.network in NETWORKS for recipe in recipes)
    assert len(set(recipes)) == len(recipes)


@pytest.mark.long
def test_the_articles_training_runs_without_an_export(drawn_folder: Path) -> None:
    (row,) = importlib.import_module("benchmarks.article").train_only(drawn_folder, epochs=2, seed=2)
    assert row["epochs"] == 2
    assert row["seconds_per_epoch"] > 0
    assert 0 <= row["test_accuracy"] <= 1
