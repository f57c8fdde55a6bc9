import time
from dataclasses import replace

import keras
import pytest

from service.data.dataset import Dataset
from service.errors import SettingsError, TrainingError
from service.training import transfer_plan
from service.training.observer import Observer
from service.training.plan import Budget
from service.training.recipe import TransferRecipe
from service.training.run import Run
from service.training.schedule import Schedule
from service.training.transfer_plan import Paces, choose_epochs, list_steps, plan_transfer

RECIPE = TransferRecipe("test", "efficientnet_lite0", Schedule(epochs=6, batch_size=4), min_validation=1)
PACES = Paces(decode=0.01, look=0.02)


def seconds_of(dataset: Dataset, recipe: TransferRecipe, run: Run) -> float:
    return sum((step.seconds or 0) * step.num_units for step in list_steps(dataset, recipe, run, PACES))


def test_the_steps_are_those_of_the_training(dataset: Dataset, run: Run) -> None:
    known = sum(len(dataset.split.photographs[part]) for part in ("train", "validation"))
    ends = [
        (f"decoding {known} photographs", known, ""),
        ("computing features", known, ""),
        ("learning the last layer", 1, ""),
    ]
    tuning = [("network learns", 6, "first network"), ("network learns", 6, "second network")]
    last = [("exporting and evaluating", 1, "")]
    for recipe, expected in (
        (RECIPE, [*ends, *tuning, *last]),
        (replace(RECIPE, tuned=0.0), [*ends, *last]),
        (replace(RECIPE, min_validation=1000), [*ends, *last]),
    ):
        steps = list_steps(dataset, recipe, run, PACES)
        assert [(step.name, step.num_units, step.note) for step in steps] == expected


def test_as_many_epochs_as_fit_are_chosen(dataset: Dataset, run: Run) -> None:
    whole, frozen = (seconds_of(dataset, recipe, run) for recipe in (RECIPE, replace(RECIPE, tuned=0.0)))
    assert choose_epochs(dataset, RECIPE, run, PACES, whole + 1) == RECIPE
    assert choose_epochs(dataset, RECIPE, run, PACES, whole - 1).schedule.epochs == 5
    assert choose_epochs(dataset, RECIPE, run, PACES, frozen + 1).tuned == 0.0
    with pytest.raises(SettingsError, match=r"The least, a last layer, needs about .* here\. Add 1 to --minutes"):
        choose_epochs(dataset, RECIPE, run, PACES, frozen - 1)


def test_a_resumed_run_keeps_its_choice(dataset: Dataset, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    images = keras.Input((224, 224, 3), dtype="uint8")
    features = keras.layers.GlobalAveragePooling2D()(keras.ops.cast(images, "float32"))
    monkeypatch.setattr(transfer_plan, "features_model", lambda _: keras.Model(images, {"features": features}))
    budget = Budget(100, time.monotonic())
    chosen, plan = plan_transfer(dataset, RECIPE, run, Observer(), why="It is a test.", budget=budget)
    assert chosen == replace(RECIPE, network="efficientnet_lite2"), "its layers are tuned"
    assert plan.title == "EfficientNet-Lite2, pretrained on ImageNet, gets a new last layer. It is a test."
    (run.folder / "plan.json").write_text('{"epochs": 3, "tuned": 0.5}')
    assert plan_transfer(dataset, RECIPE, run, Observer(), why="", budget=budget)[0].schedule.epochs == 3
    assert plan_transfer(dataset, RECIPE, run, Observer(), why="", budget=None)[0] == chosen
    (run.folder / "plan.json").write_text('{"epochs": 0, "tuned": 0.5}')
    with pytest.raises(TrainingError, match=r"plan\.json is damaged.* Remove it"):
        plan_transfer(dataset, RECIPE, run, Observer(), why="", budget=budget)
