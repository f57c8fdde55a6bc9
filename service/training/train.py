"""Training from photographs to a published version."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras

from service.data.dataset import Dataset
from service.errors import DeviceUnavailable, TrainingError
from service.evaluation.metrics import Evaluation
from service.evaluation.mistakes import Mistake, list_worst
from service.store.publish import publish_version
from service.store.versions import list_candidates
from service.training.alexnet import train_alexnet
from service.training.alexnet_plan import plan_alexnet
from service.training.checkpoint import Epoch, seconds_per_epoch
from service.training.cross_validation import cross_validate
from service.training.gate import Verdict, judge
from service.training.go_on import go_on
from service.training.keras_settings import can_export, has_gpu
from service.training.observer import Observer
from service.training.plan import Budget
from service.training.recipe import AlexNetRecipe, Recipe, TransferRecipe
from service.training.run import REPORT_FILE, Run
from service.training.trained_network import TrainedNetwork
from service.training.transfer import train_transfer
from service.training.transfer_plan import plan_transfer


@dataclass(frozen=True)
class Trained:
    """A published version and its evaluation on the test part. `interrupted` means that the training ended early.

    `mistakes` are the three most confident ones on the test part. `verdict` says whether it is a version or a
    candidate, and why. It is None for a training that was finished before.
    """

    model: str
    version: int
    device: str
    run: Path
    history: tuple[Epoch, ...]
    interrupted: bool
    test: Evaluation
    mistakes: tuple[Mistake, ...] = ()
    verdict: Verdict | None = None

    @property
    def report(self) -> Path | None:
        """Path of the report, or None if it could not be written."""
        path = self.run / REPORT_FILE
        return path if path.exists() else None

    @property
    def num_epochs(self) -> int:
        """Number of trained epochs."""
        return self.history[-1].epoch + 1

    @property
    def seconds_per_epoch(self) -> float:
        """Mean in seconds, without the first of several epochs."""
        return seconds_per_epoch(self.history)


def list_devices(wish: str) -> list[str]:
    """Return the devices, "gpu" and "cpu", that Keras can train on and `wish` allows. "auto" allows all, best first.

    Raises `DeviceUnavailable` if the wish is "gpu" and Keras sees none.
    """
    if wish == "gpu" and not has_gpu():
        backend = keras.backend.backend()
        raise DeviceUnavailable(f"No GPU is there. {backend} sees none. `flowers doctor` says what is missing.")
    return {"cpu": ["cpu"], "gpu": ["gpu"], "auto": ["gpu", "cpu"] if has_gpu() else ["cpu"]}[wish]


def train(
    dataset: Dataset, recipe: Recipe, run: Run, observer: Observer, *,
    why: str = "", budget: Budget | None = None, take: bool | None = None,
) -> Trained | None:  # fmt: skip
    """Train by a recipe and publish the result as the next version of the run's model, or as a candidate.

    The observer gets the plan first. `why` is a sentence in it on the choice of the network. With a budget the longest
    training that fits is chosen, and the run goes on with this choice. `judge` decides what goes live, unless `take`
    does.

    An interrupted training is resumed from its run folder. A finished one is returned as it is. Return None where
    TensorFlow is missing for the export. The networks then lie in the run folder. Return None in a process of a cluster
    that is not its chief, too.

    Raises:
        SettingsError: Not even one epoch fits into the budget.
        DatasetError: A photograph has changed since the check, or there are too few for the folds.
        PublishError: The version could not be written.
        WeightsError: The teacher's weights are not installed, or are not the known ones.
        TrainingError: The training could not go on, or the run folder cannot be written.
        KeyboardInterrupt: Ctrl-C came before there was a network to publish.
    """
    if run.published:
        return _read_finished(run, run.published, observer)
    match recipe:
        case AlexNetRecipe():
            recipe, plan = plan_alexnet(dataset, recipe, run, observer, why=why, budget=budget)
        case TransferRecipe():
            recipe, plan = plan_transfer(dataset, recipe, run, observer, why=why, budget=budget)
    observer.planned(plan)
    run.cluster.require_same(
        run.folder.name.encode(),
        "The processes see different photographs, settings or run folders. The same ones were expected. Give all the "
        "same command, with the same photographs and --runs, and start them again.",
    )
    if run.cluster.is_chief:
        run.describe(recipe, dataset)
    match recipe:
        case AlexNetRecipe(begin_with=int()):
            trained = go_on(dataset, recipe, run, observer)
        case AlexNetRecipe(num_folds=0):
            trained = train_alexnet(dataset, recipe, run, observer)
        case AlexNetRecipe():
            trained = cross_validate(dataset, recipe, run, observer)
        case TransferRecipe():
            trained = train_transfer(dataset, recipe, run, observer)
    if not run.cluster.is_chief:
        observer.say("The training is done. The chief, process 0, publishes it.")
        return None
    if not can_export():
        observer.say(
            f"The training is done, and its weights are in {run.folder}. The export needs TensorFlow, which is not at "
            "work here. Take this folder and the photographs to a machine with TensorFlow. Give the same command "
            "`flowers train` there, without KERAS_BACKEND=jax."
        )
        return None
    observer.stage("exporting and evaluating")
    return publish_network(trained, dataset, run, observer, take=take)


def publish_network(
    trained: TrainedNetwork, dataset: Dataset, run: Run, observer: Observer, *, take: bool | None = None
) -> Trained:
    """Export, evaluate, judge and publish a network, and write the run's last files.

    Raises `PublishError` if the version could not be written. If a file of the run cannot be, the observer is told.
    """
    from service.training.export.version import write_version  # here, as TensorFlow may be missing

    with publish_version(run.store, run.model) as draft:
        test = write_version(draft.folder, run.model, trained, dataset)
        verdict = judge(test.answers, dataset, run, is_finished=trained.is_finished, take=take)
        draft.is_candidate = not verdict.is_taken
    try:
        run.finish(draft.version, test, trained, dataset)
    except (Exception, KeyboardInterrupt) as error:  # the version is out, whatever a figure or a file runs into
        why = "it was interrupted" if isinstance(error, KeyboardInterrupt) else str(error) or repr(error)
        observer.say(
            f"Version {draft.version} of {run.model} is published, but its report in {run.folder} is not complete: "
            f"{why}. `flowers evaluate FOLDER --report FILE` writes another."
        )
    return Trained(
        run.model, draft.version, run.device, run.folder, trained.history, trained.interrupted, test.evaluation,
        list_worst(test.answers, dataset.class_names), verdict,
    )  # fmt: skip


def _read_finished(run: Run, published: dict[str, Any], observer: Observer) -> Trained:
    try:
        history = tuple(Epoch(**row) for row in json.loads((run.folder / "history.json").read_bytes()))
        test = Evaluation.from_dict(published["test"])
        rows = published.get("mistakes", [])  # older runs have none
        mistakes = tuple(Mistake(**{**row, "path": Path(row["path"])}) for row in rows)
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise TrainingError(
            f"{run.folder} was finished, but its history.json or published.json cannot be read. Train it anew "
            "with --again."
        ) from error
    model, version = published["model"], published["version"]
    observer.say(
        f"This training is finished already: it made version {version} of {model}, and its run folder is "
        f"{run.folder}. Nothing was trained. Give --again to train it anew."
    )
    is_candidate = version in {stored.version for stored in list_candidates(run.store, model)}
    verdict = Verdict(False, "It was trained before.") if is_candidate else None
    return Trained(model, version, run.device, run.folder, history, False, test, mistakes, verdict)
