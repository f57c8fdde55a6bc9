"""Plan of an AlexNet's training from measured paces, and the choice of what fits into a budget."""

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

from service.data.dataset import Dataset
from service.errors import SettingsError
from service.training.alexnet import MIN_EPOCH, learns_on_device
from service.training.checkpoint import unfit_file
from service.training.kept import PLAN_FILE, Kept, find_kept, read_choice, write_choice
from service.training.observer import Observer
from service.training.paces import Paces, measure_paces
from service.training.plan import NETWORK_LEARNS, Budget, Plan, Step, describe_seconds
from service.training.recipe import AlexNetRecipe
from service.training.run import Run

_MIN_STEPS = 200  # of a network. A measurement takes as long as ten of them, which is 5 %
_RESERVE = 0.05  # share of a budget that is left for what a measurement cannot know
# Both are estimates, as a measurement would be the whole step. An export of AlexNet v2 and its report took 26 s on two
# cores that other programs used, too. To score a photograph is taken for half a training step of it.
_EXPORT_SECONDS, _EVALUATION_STEPS = 25.0, 0.5


@dataclass(frozen=True)
class _Network:
    """One of the networks that a training trains, with its number of photographs."""

    run: Run
    num_photographs: int
    note: str = ""

    @property
    def num_views(self) -> int:
        """Number of views in an epoch."""
        return self.num_photographs * -(-MIN_EPOCH // self.num_photographs)


def plan_alexnet(
    dataset: Dataset, recipe: AlexNetRecipe, run: Run, observer: Observer, *, why: str, budget: Budget | None
) -> tuple[AlexNetRecipe, Plan]:
    """Plan the training of a recipe, or with a budget of the longest shorter one that fits.

    The choice is kept in the run folder, and the same command goes on with it. Steps of fewer than 200 batches are not
    measured without a budget. Export and evaluation are estimates. `why` is a sentence on the choice of the network.

    Raises:
        SettingsError: Not even one epoch fits into the budget, or the recipe cannot be measured.
        TrainingError: The choice cannot be written or read.
    """
    kept_choice = _read_choice(recipe, run) if budget else None
    recipe = kept_choice or recipe
    if budget and learns_on_device(recipe):
        raise SettingsError("--minutes is not for a cross-validation on JAX, which cannot be measured. Give --epochs.")
    paces = _measure(dataset, recipe, run, observer, is_budgeted=budget is not None)
    if budget and not kept_choice:
        left = budget.seconds_left(time.monotonic()) * (1 - _RESERVE)
        recipe = choose_recipe(dataset, recipe, run, paces, left)
        _write_choice(recipe, run)
    network = recipe.network.replace("alexnet_", "AlexNet ")
    taught = f" learns the answers of {recipe.teaching.teacher}" if recipe.teaching else " learns the labels"
    return recipe, Plan(f"{network}{taught}. {why}".strip(), list_steps(dataset, recipe, run, paces))


def choose_recipe(
    dataset: Dataset, recipe: AlexNetRecipe, run: Run, paces: Paces, seconds: float
) -> AlexNetRecipe:  # fmt: skip
    """Return the recipe if it fits into `seconds`, or the longest shorter one.

    The second network is left out first. Then there are fewer epochs. The numbers of views and of the teacher's epochs
    fall with their square root. That is a guess. Raises `SettingsError` if one epoch of each does not fit.
    """
    needed = 0.0
    for shorter in _shorten(recipe):
        steps = list_steps(dataset, shorter, run, paces)
        needed = sum((step.num_units - step.num_done) * (step.seconds or 0.0) for step in steps)
        if needed <= seconds:
            return shorter
    more = math.ceil((needed - seconds) / (1 - _RESERVE) / 60)
    hint = "" if recipe.teaching is None else ", or leave out the teacher with --teacher none"
    raise SettingsError(
        f"--minutes leaves {describe_seconds(max(seconds, 0))} for the training. The least, one epoch, needs "
        f"{describe_seconds(needed)} here. Add {more} to --minutes{hint}."
    )


def _shorten(recipe: AlexNetRecipe) -> Iterator[AlexNetRecipe]:
    yield recipe
    longest = recipe.schedule.epochs
    for epochs in range(longest, 0, -1):
        teaching, share = recipe.teaching, math.sqrt(epochs / longest)
        if teaching:
            counts = {name: math.ceil(getattr(teaching, name) * share) for name in ("num_views", "epochs")}
            teaching = replace(teaching, **counts)
        yield replace(recipe, refit=False, schedule=replace(recipe.schedule, epochs=epochs), teaching=teaching)


def list_steps(dataset: Dataset, recipe: AlexNetRecipe, run: Run, paces: Paces) -> list[Step]:
    """List the steps of a training, with what its run folder keeps."""
    num_decoded = sum(len(dataset.split.photographs[part]) for part in ("train", "validation"))
    steps = [Step(f"decoding {num_decoded:,} photographs", num_decoded, paces.decode)]
    for network in _list_networks(dataset, recipe, run):
        steps += _list_of_network(network, recipe, paces, find_kept(network.run))
    scored, score = len(dataset.split.photographs["test"]), _EVALUATION_STEPS * (paces.network_learns or paces.decode)
    seconds = _EXPORT_SECONDS + scored * (paces.decode + score)
    return [*steps, Step("exporting and evaluating", seconds=seconds)]


def _list_of_network(network: _Network, recipe: AlexNetRecipe, paces: Paces, kept: Kept) -> Iterator[Step]:
    def for_all(pace: float | None) -> float | None:
        return None if pace is None else pace * network.num_views

    epochs, teaching = recipe.schedule.epochs, recipe.teaching
    if teaching:
        is_taught = kept.is_taught or kept.views >= teaching.num_views
        yield Step(
            f"{teaching.teacher} learns", teaching.epochs, for_all(paces.teacher_learns), "epoch",
            teaching.epochs if is_taught else min(kept.teacher_epochs, teaching.epochs), network.note,
        )  # fmt: skip
        yield Step(
            f"{teaching.teacher} answers", teaching.num_views, for_all(paces.teacher_answers), "view",
            teaching.num_views if is_taught else kept.views, network.note,
        )  # fmt: skip
    yield Step(
        NETWORK_LEARNS, epochs, for_all(paces.network_learns), "epoch", min(kept.epochs, epochs), network.note
    )  # fmt: skip


def _list_networks(dataset: Dataset, recipe: AlexNetRecipe, run: Run) -> Iterator[_Network]:
    num_train, num_validation = (len(dataset.split.photographs[part]) for part in ("train", "validation"))
    known, num_folds = num_train + num_validation, recipe.num_folds
    if recipe.begin_with is not None:
        yield _Network(run, known + len(dataset.outliers))
        return
    if num_folds:
        yield _Network(run.sub("whole"), known, f"network 1 of {num_folds + 1}")
        for fold in range(num_folds):
            in_others = max(1, known - known // num_folds)
            yield _Network(run.sub(f"fold-{fold}"), in_others, f"network {fold + 2} of {num_folds + 1}")
        return
    yield _Network(run, num_train + len(dataset.outliers), "first network" if recipe.refit else "")
    if recipe.refit:
        yield _Network(run.sub("refit"), known + len(dataset.outliers), "second network")


def _measure(dataset: Dataset, recipe: AlexNetRecipe, run: Run, observer: Observer, *, is_budgeted: bool) -> Paces:
    """Measure what is left to do and long enough. With `is_budgeted`, all that is left."""
    num_views, num_steps = 0, {"teacher": 0.0, "network": 0.0}
    for network in _list_networks(dataset, recipe, run):
        num_views = max(num_views, network.num_views)
        for step in _list_of_network(network, recipe, Paces(0.0), find_kept(network.run)):
            kind = "network" if step.name == NETWORK_LEARNS else "teacher"
            batch_size = recipe.schedule.batch_size if kind == "network" else 32
            num_steps[kind] += (step.num_units - step.num_done) * network.num_views / batch_size
    is_long = {kind: number >= _MIN_STEPS or (is_budgeted and number > 0) for kind, number in num_steps.items()}
    is_long["network"] = is_long["network"] and not learns_on_device(recipe)
    if any(is_long.values()):
        observer.stage("measuring how long it takes here")
    return measure_paces(dataset, recipe, run.device, num_views, **is_long)


def _write_choice(recipe: AlexNetRecipe, run: Run) -> None:
    choice = {"epochs": recipe.schedule.epochs, "refit": int(recipe.refit)}
    if recipe.teaching:
        choice |= {"num_views": recipe.teaching.num_views, "teacher_epochs": recipe.teaching.epochs}
    write_choice(run.folder, choice)


def _read_choice(recipe: AlexNetRecipe, run: Run) -> AlexNetRecipe | None:
    choice, teaching = read_choice(run.folder), recipe.teaching
    if choice is None:
        return None
    try:
        if teaching:
            teaching = replace(teaching, num_views=int(choice["num_views"]), epochs=int(choice["teacher_epochs"]))
        schedule = replace(recipe.schedule, epochs=int(choice["epochs"]))
    except (KeyError, SettingsError) as error:
        raise unfit_file(run.folder / PLAN_FILE) from error
    if teaching and min(teaching.num_views, teaching.epochs) < 1:
        raise unfit_file(run.folder / PLAN_FILE)
    return replace(recipe, refit=bool(choice.get("refit")), schedule=schedule, teaching=teaching)
