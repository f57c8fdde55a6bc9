"""Plan of a training by the recipe `transfer`, and the choice of what fits into a budget."""

import math
import time
from dataclasses import dataclass, replace

import keras
import numpy as np

from service.data.dataset import Dataset
from service.errors import SettingsError
from service.training.checkpoint import unfit_file
from service.training.features import NUM_VIEWS
from service.training.fit import predict
from service.training.kept import PLAN_FILE, find_kept, read_choice, write_choice
from service.training.observer import Observer
from service.training.plan import NETWORK_LEARNS, Budget, Plan, Step, describe_seconds
from service.training.recipe import TransferRecipe
from service.training.run import Run
from service.training.transfer import FEATURES_STEP, LAST_LAYER_STEP, can_tune, choose_network, features_model

_NUM_MEASURED = 16  # photographs
_MIN_EPOCHS = 2  # of tuning. The learning rate rises in half of the first
_RESERVE = 0.05  # share of a budget that is left for what a measurement cannot know
# Estimates, since to measure would cost too much. A tuned view takes as long as these features of one, on two cores of
# an AMD EPYC. The last layer and the export take these seconds.
_TUNING_PACE, _LAST_LAYER_SECONDS, _EXPORT_SECONDS = 2.5, 8.0, 30.0


@dataclass(frozen=True)
class Paces:
    """Seconds on this machine for one photograph. `look` is for the features of one view."""

    decode: float
    look: float


def plan_transfer(
    dataset: Dataset, recipe: TransferRecipe, run: Run, observer: Observer, *, why: str, budget: Budget | None
) -> tuple[TransferRecipe, Plan]:
    """Plan the training of a recipe, or with a budget of as many epochs of tuning as fit.

    Decoding and features are measured on 16 photographs. The other paces are estimates. The choice is kept in the run
    folder, and the same command goes on with it. `why` is a sentence on the choice of the network.

    Raises:
        SettingsError: The last layer alone does not fit into the budget.
        TrainingError: The choice cannot be written or read.
    """
    observer.stage("measuring how long it takes here")
    recipe = choose_network(dataset, recipe)
    paces = _measure(dataset, recipe, run.device)
    kept = _read_choice(recipe, run) if budget else None
    if budget and kept is None:
        left = budget.seconds_left(time.monotonic()) * (1 - _RESERVE)
        kept = choose_epochs(dataset, recipe, run, paces, left)
        write_choice(run.folder, {"epochs": kept.schedule.epochs, "tuned": kept.tuned})
    recipe = kept or recipe
    network = recipe.network.replace("efficientnet_lite", "EfficientNet-Lite")
    title = f"{network}, pretrained on ImageNet, gets a new last layer. {why}".strip()
    return recipe, Plan(title, list_steps(dataset, recipe, run, paces))


def choose_epochs(
    dataset: Dataset, recipe: TransferRecipe, run: Run, paces: Paces, seconds: float
) -> TransferRecipe:  # fmt: skip
    """Return the recipe if it fits into `seconds`, or one with fewer epochs of tuning, or with none.

    Raises `SettingsError` if not even the last layer fits.
    """
    fewer = range(recipe.schedule.epochs, _MIN_EPOCHS - 1, -1)
    shorter = [replace(recipe, schedule=replace(recipe.schedule, epochs=epochs)) for epochs in fewer]
    needed = 0.0
    for fitting in (*shorter, replace(recipe, tuned=0.0)):
        steps = list_steps(dataset, fitting, run, paces)
        needed = sum(step.seconds * (step.num_units - step.num_done) for step in steps if step.seconds)
        if needed <= seconds:
            return fitting
    more = math.ceil((needed - seconds) / (1 - _RESERVE) / 60)
    raise SettingsError(
        f"--minutes leaves {describe_seconds(max(seconds, 0))} for the training. The least, a last layer, needs "
        f"{describe_seconds(needed)} here. Add {more} to --minutes."
    )


def list_steps(dataset: Dataset, recipe: TransferRecipe, run: Run, paces: Paces) -> list[Step]:
    """List the steps of a training, with what its run folder keeps."""
    num_train, num_validation, num_test = (
        len(dataset.split.photographs[part]) for part in ("train", "validation", "test")
    )
    known = num_train + num_validation
    steps = [
        Step(f"decoding {known:,} photographs", known, paces.decode),
        Step(FEATURES_STEP, known, NUM_VIEWS * paces.look, "photograph"),
        Step(LAST_LAYER_STEP, seconds=_LAST_LAYER_SECONDS),
    ]
    if can_tune(dataset, recipe):
        for name, number, note in (("tuned", num_train, "first network"), ("refit", known, "second network")):
            epochs = recipe.schedule.epochs
            done = min(find_kept(run.sub(name)).epochs, epochs)
            steps.append(Step(NETWORK_LEARNS, epochs, number * _TUNING_PACE * paces.look, "epoch", done, note))
    seconds = _EXPORT_SECONDS + num_test * (paces.decode + 2 * paces.look)
    return [*steps, Step("exporting and evaluating", seconds=seconds)]


def _measure(dataset: Dataset, recipe: TransferRecipe, device: str) -> Paces:
    began = time.perf_counter()
    squares = np.asarray(dataset.sample_squares("train", _NUM_MEASURED).images)
    decode = (time.perf_counter() - began) / len(squares)
    with keras.device(f"{device}:0"):
        model = features_model(recipe.network)
        predict(model, squares)  # traces
        began = time.perf_counter()
        predict(model, squares)
    return Paces(decode, (time.perf_counter() - began) / len(squares))


def _read_choice(recipe: TransferRecipe, run: Run) -> TransferRecipe | None:
    choice = read_choice(run.folder)
    if choice is None:
        return None
    try:
        schedule = replace(recipe.schedule, epochs=int(choice["epochs"]))
        return replace(recipe, schedule=schedule, tuned=choice["tuned"])
    except (KeyError, SettingsError) as error:
        raise unfit_file(run.folder / PLAN_FILE) from error
