"""The benchmarks of training still fit what they measure: their parts run on drawn photographs."""

import importlib
import subprocess
import sys
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from support.fitting import drawn_pixels

from service.data.check import check_folder
from service.data.folder import read_folder
from service.data.split import split_photographs
from service.imaging.pixels import ImageLimits
from service.networks.alexnet import NETWORKS

BENCHMARKS = Path(__file__).resolve().parent.parent.parent / "benchmarks"


@pytest.fixture(autouse=True)
def scripts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))  # they are run as files


@pytest.mark.parametrize("num_views", [0, 2])
def test_the_batches_that_are_timed_are_those_of_a_training(num_views: int) -> None:
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
    assert all(recipe.epochs == accuracy.EPOCHS and recipe.network in NETWORKS for recipe in recipes)
    assert len(set(recipes)) == len(recipes)


def test_the_folds_share_out_what_is_published_and_keep_near_duplicates_together(drawn_folder: Path) -> None:
    in_memory = importlib.import_module("service.training.fit_on_device")
    check = check_folder(read_folder(drawn_folder), ImageLimits())
    split = split_photographs(check, 2)
    known = [*split.photographs["train"], *split.photographs["validation"]]
    alike = replace(known[7], perceptual_hash=known[3].perceptual_hash)
    check = replace(check, photographs=tuple(alike if one == known[7] else one for one in check.photographs))
    train = tuple(alike if one == known[7] else one for one in split.photographs["train"])
    whole, *folds = in_memory.rounds(check, replace(split, photographs={**split.photographs, "train": train}))
    known[7] = alike
    assert set(whole.learned) == set(known)
    assert sorted(one.file for fold in folds for one in fold.unseen) == sorted(one.file for one in known)
    for fold in folds:
        assert set(fold.learned) == set(known) - set(fold.unseen)
        assert (known[3] in fold.unseen) == (alike in fold.unseen)


def test_the_articles_training_runs_without_an_export(drawn_folder: Path) -> None:
    (row,) = importlib.import_module("benchmarks.article").train_only(drawn_folder, epochs=2, seed=2)
    assert row["epochs"] == 2
    assert row["seconds_per_epoch"] > 0
    assert 0 <= row["test_accuracy"] <= 1


SAME_VIEWS = """
import numpy as np
from benchmarks import view_makers
from service.data.views import Views
from service.imaging.pixels import ResizeRule
from service.training.augment import training_view
from service.training.recipe import find_recipe

photographs = list(np.random.default_rng(0).integers(0, 256, (9, 256, 300, 3), np.uint8))
make, selection = training_view(find_recipe("patient"), ResizeRule()), np.array([1, 2, 4, 8])
view_makers._CHUNK = 3
with view_makers.ViewMakers(photographs, make) as makers:
    made = view_makers.MadeViews(makers, selection, seed=3, num_views=2)
own = Views([photographs[number] for number in selection], make, 3, 2)
for view in range(2):
    a, b = (views.batch(np.arange(4), np.full(4, view)) for views in (made, own))
    for one, other in zip((a.images, a.others, a.shares), (b.images, b.others, b.shares), strict=True):
        np.testing.assert_array_equal(one, other)
assert len(made) == 4 and a.images.std() > 10
"""


def test_processes_make_the_same_views_as_threads() -> None:
    # In a process of its own, as it is forked: TensorFlow's threads are here.
    subprocess.run([sys.executable, "-c", SAME_VIEWS], cwd=BENCHMARKS.parent, check=True)
