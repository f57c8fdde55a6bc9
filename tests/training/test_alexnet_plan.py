import time
from dataclasses import replace
from pathlib import Path

import pytest
from support.fitting import RECIPE

from service.data.dataset import Dataset
from service.errors import SettingsError, TrainingError
from service.training import alexnet_plan
from service.training.alexnet_plan import choose_recipe, list_steps, plan_alexnet
from service.training.observer import Observer
from service.training.paces import Paces
from service.training.plan import Budget
from service.training.recipe import AlexNetRecipe, Teaching
from service.training.run import Run

TAUGHT = replace(
    RECIPE, schedule=replace(RECIPE.schedule, epochs=100), teaching=Teaching("mean_color", num_views=16), refit=True
)  # fmt: skip
NETWORK_LEARNS = 0.002
PACES = Paces(0.01, teacher_learns=0.02, teacher_answers=0.005, network_learns=NETWORK_LEARNS)


def num_views(num_photographs: int) -> int:
    """Views in an epoch, which is at least 1,024."""
    return num_photographs * -(-1024 // num_photographs)


def seconds_of(dataset: Dataset, recipe: AlexNetRecipe, run: Run) -> float:
    return sum((step.seconds or 0) * step.num_units for step in list_steps(dataset, recipe, run, PACES))


def test_the_steps_are_those_of_the_training(dataset: Dataset, run: Run) -> None:
    names = [(step.name, step.num_units, step.note) for step in list_steps(dataset, TAUGHT, run, PACES)]
    of_network = [("mean_color learns", 6), ("mean_color answers", 16), ("network learns", 100)]
    first, second = ([(*step, note) for step in of_network] for note in ("first network", "second network"))
    num_decoded = sum(len(dataset.split.photographs[part]) for part in ("train", "validation"))
    decoding = (f"decoding {num_decoded} photographs", num_decoded, "")
    assert names == [decoding, *first, *second, ("exporting and evaluating", 1, "")]
    folded = list_steps(dataset, replace(RECIPE, num_folds=2), run, PACES)
    assert [step.note for step in folded[1:-1]] == [f"network {number} of 3" for number in (1, 2, 3)]


def test_a_training_that_goes_on_has_one_network(dataset: Dataset, run: Run) -> None:
    going_on = replace(TAUGHT, begin_with=1, refit=False)
    with_outliers = replace(dataset, outliers=(Path("cars/1.jpg"),) * 200)
    few, many = (list_steps(one, going_on, run, PACES)[-2].seconds for one in (dataset, with_outliers))
    assert [step.name for step in list_steps(dataset, going_on, run, PACES)][1:-1] == [
        "mean_color learns", "mean_color answers", "network learns",
    ]  # fmt: skip
    assert few == pytest.approx(NETWORK_LEARNS * num_views(50))
    assert many == pytest.approx(NETWORK_LEARNS * num_views(50 + 200))


def test_kept_work_is_done_in_the_plan(dataset: Dataset, run: Run) -> None:
    (run.folder / "lesson.npz").touch()
    done = [step.num_done for step in list_steps(dataset, replace(TAUGHT, refit=False), run, PACES)]
    assert done == [0, 6, 16, 0, 0]


def test_the_longest_training_that_fits_is_chosen(dataset: Dataset, run: Run) -> None:
    whole = seconds_of(dataset, TAUGHT, run)
    assert choose_recipe(dataset, TAUGHT, run, PACES, whole + 1) == TAUGHT
    without_refit = choose_recipe(dataset, TAUGHT, run, PACES, whole - 1)
    assert without_refit == replace(TAUGHT, refit=False)
    shorter = choose_recipe(dataset, TAUGHT, run, PACES, seconds_of(dataset, without_refit, run) / 2)
    assert shorter.teaching is not None
    epochs, views = shorter.schedule.epochs, shorter.teaching.num_views
    assert 1 < epochs < 100
    assert 1 < views < 16
    longer = replace(shorter, schedule=replace(shorter.schedule, epochs=epochs + 2))
    assert seconds_of(dataset, longer, run) > seconds_of(dataset, without_refit, run) / 2


def test_too_few_minutes_are_refused_with_the_least(dataset: Dataset, run: Run) -> None:
    with pytest.raises(SettingsError, match=r"The least, one epoch, needs about .* here\. Add 2 to --minutes"):
        choose_recipe(dataset, TAUGHT, run, PACES, 1.0)


def test_a_resumed_run_keeps_its_choice(dataset: Dataset, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    measured = PACES
    monkeypatch.setattr(alexnet_plan, "measure_paces", lambda *_, **__: measured)
    budget = Budget(seconds_of(dataset, TAUGHT, run) / 60 / 3, time.monotonic())
    chosen, plan = plan_alexnet(dataset, TAUGHT, run, Observer(), why="It is a test.", budget=budget)
    assert 1 < chosen.schedule.epochs < 100
    assert plan.title == "tiny learns the answers of mean_color. It is a test."
    measured = replace(PACES, network_learns=1.0)  # another process takes the cores
    assert plan_alexnet(dataset, TAUGHT, run, Observer(), why="", budget=budget)[0] == chosen
    assert plan_alexnet(dataset, TAUGHT, run, Observer(), why="", budget=None)[0] == TAUGHT
    (run.folder / "plan.json").write_text('{"epochs": 0}')
    with pytest.raises(TrainingError, match=r"plan\.json is damaged.* Remove it"):
        plan_alexnet(dataset, TAUGHT, run, Observer(), why="", budget=budget)


def test_a_short_training_is_measured_only_for_a_budget(
    dataset: Dataset, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[dict[str, bool]] = []

    def measure(*_: object, **kinds: bool) -> Paces:
        asked.append(kinds)
        return PACES

    monkeypatch.setattr(alexnet_plan, "measure_paces", measure)
    budget = Budget(100, time.monotonic())
    for epochs, given in ((1, None), (400, None), (1, budget)):
        recipe = replace(RECIPE, schedule=replace(RECIPE.schedule, epochs=epochs, batch_size=64))
        plan_alexnet(dataset, recipe, run, Observer(), why="", budget=given)
    assert asked == [{"teacher": False, "network": is_long} for is_long in (False, True, True)]
