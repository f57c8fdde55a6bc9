"""The whole training, top to bottom: check, split, fit, fold, calibrate, export, evaluate, publish."""

import hashlib
import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np

from service.data.batches import LabelledPixels, load_squares, load_whole
from service.data.check import DataCheck, check_folder
from service.data.folder import read_folder
from service.data.losses import describe_losses, refuse_lost_classes
from service.data.split import Split, split_photographs
from service.data.views import Views
from service.errors import DatasetError, DeviceUnavailable, TrainingError
from service.evaluation.metrics import Evaluation
from service.imaging.pixels import ImageLimits, ResizeRule
from service.networks.alexnet import NETWORKS
from service.networks.backbones import load_backbone
from service.store.publish import check_can_publish, publish_version
from service.store.versions import list_stored
from service.training.augment import training_view
from service.training.calibrate import calibrate
from service.training.checkpoint import Epoch, seconds_per_epoch
from service.training.export.version import TrainedNetwork, write_version
from service.training.fit import Fitted, fit, predict_logits
from service.training.fold import fold_batch_norm
from service.training.observer import Observer
from service.training.recipe import Recipe
from service.training.run_files import describe_run, write_published
from service.training.run import make_folder, open_run
from service.training.teach import prepare_lesson

RULE = ResizeRule()
LIMITS = ImageLimits()
_MIN_EPOCH = 1024  # views; a smaller folder is gone through several times, so that an epoch is worth its validation


@dataclass(frozen=True)
class Trained:
    """A published version, and its evaluation on the test part. `interrupted`: the training ended early."""

    model: str
    version: int
    device: str
    run: Path
    history: tuple[Epoch, ...]
    interrupted: bool
    test: Evaluation

    @property
    def seconds_per_epoch(self) -> float:
        """As `checkpoint` counts it."""
        return seconds_per_epoch(self.history)


def list_devices(wish: str) -> list[str]:
    """The devices ("gpu", "cpu") that this machine can train on and `wish` allows; "auto" allows all, best first.

    Raises:
        DeviceUnavailable: "gpu" is wished for and Keras sees none.
    """
    has_gpu = bool(keras.distribution.list_devices("gpu"))
    if wish == "gpu" and not has_gpu:
        backend = keras.backend.backend()
        raise DeviceUnavailable(f"no GPU: {backend} sees none here; `flowers doctor` says what is missing")
    return {"cpu": ["cpu"], "gpu": ["gpu"], "auto": ["gpu", "cpu"] if has_gpu else ["cpu"]}[wish]


def train(
    folder: Path,
    name: str,
    recipe: Recipe,
    *,
    seed: int,
    device: str,
    store: Path,
    runs: Path,
    observer: Observer,
    limits: ImageLimits = LIMITS,
    again: bool = False,
) -> Trained:
    """Train by `recipe` on a folder of class folders, and publish the result as the next version of `name`.

    The run folder `runs/<name>-<digest>` is named after everything that shapes the result. The same command finds the
    checkpoint of an interrupted run there and resumes it. A finished run, whose version is still in the store, is
    returned as it is.

    Args:
        folder: one folder of photographs per class.
        name: of the model in the store.
        recipe: how.
        seed: of split, initial weights, order and views.
        device: "cpu" or "gpu", from `list_devices`.
        store: the model store.
        runs: where run folders are made.
        observer: is told how it goes.
        limits: of each photograph. Those beyond it are findings of the check.
        again: train anew, in a new run folder, what was finished before.

    Raises:
        DatasetError: the folder cannot be trained on.
        PublishError: the store cannot be written; found out before the training as well.
        WeightsError: the teacher's weights are not installed, or are not the known ones.
        TrainingError: the training could not go on, the run folder cannot be written, or another training uses it.
    """
    listed = read_folder(folder)
    check_can_publish(store, name)
    check = check_folder(listed, limits, observer.checking)
    observer.found(check)
    split = _split(check, seed)
    observer.checked(check, split)
    digest = _digest_run(name, recipe, seed, device, check)
    with open_run(runs, f"{name}-{digest}", lambda published: _is_in(store, published), again=again) as run:
        if published := run.published:
            finished = _read_trained(run.folder, published, device)
            observer.say(
                f"This training is finished already: it published version {finished.version} of {name}, and its run "
                f"folder is {run.folder}. Nothing was trained. Give --again to train it anew."
            )
            return finished
        describe_run(run.folder, recipe, seed, device, check, split)
        return _train_in(run.folder, name, recipe, seed, device, store, check, split, observer, limits)


def _train_in(
    run: Path,
    name: str,
    recipe: Recipe,
    seed: int,
    device: str,
    store: Path,
    check: DataCheck,
    split: Split,
    observer: Observer,
    limits: ImageLimits,
) -> Trained:
    num_photographs = len(split.photographs["train"]) + len(split.photographs["validation"])
    observer.stage(f"decoding {num_photographs:,} photographs")
    whole = load_whole(split.photographs["train"], check.class_names, RULE.shorter_side, limits)
    validation = load_squares(split.photographs["validation"], check.class_names, RULE, limits)
    fitted, teacher_accuracy = learn(recipe, whole, validation, check, seed, device, run, observer)
    observer.stage("calibrating")
    network, unseen, is_refitted = plain_network(fitted.model, recipe), validation, False
    calibration = calibrate(predict_logits(network, validation, recipe), validation.class_indices)
    if recipe.refit and not fitted.interrupted:
        observer.say(
            "The first network is trained. A second one now learns from training and validation photographs together, "
            "and is published with the first one's calibration. Ctrl-C publishes the first."
        )
        with suppress(KeyboardInterrupt):  # before its first epoch was done, as while its teacher learns
            observer.stage(f"decoding {len(split.photographs['validation']):,} photographs")
            more = load_whole(split.photographs["validation"], check.class_names, RULE.shorter_side, limits)
            both = LabelledPixels([*whole.images, *more.images], np.append(whole.class_indices, more.class_indices))
            refitted, _ = learn(recipe, both, None, check, seed, device, run / "refit", observer)
            if not refitted.interrupted:  # else it has learned less than the first
                test_part = load_squares(split.photographs["test"], check.class_names, RULE, limits)
                network, unseen, is_refitted = plain_network(refitted.model, recipe), test_part, True
    observer.stage("exporting and evaluating")
    described = {
        **asdict(recipe), "refit": is_refitted, "seed": seed, "device": device,
        "epochs_done": len(fitted.history), "teacher_accuracy": teacher_accuracy,
    }  # fmt: skip
    trained = TrainedNetwork(name, network, recipe, described, calibration, check, split, unseen)
    is_finished = is_refitted or not (recipe.refit or fitted.interrupted)
    version, test = publish_network(
        trained, store, run, fitted.history, limits, is_finished=is_finished, say=observer.say
    )
    return Trained(name, version, device, run, fitted.history, fitted.interrupted, test)


def publish_network(
    trained: TrainedNetwork,
    store: Path,
    run: Path,
    history: Sequence[Epoch],
    limits: ImageLimits = LIMITS,
    *,
    is_finished: bool = True,
    say: Callable[[str], None] | None = None,
) -> tuple[int, Evaluation]:
    """Export a trained network as the next version of its model, evaluate it, and write the run's last files.

    Args:
        trained: the network, and what is said of it.
        store: the model store.
        run: the run folder, for `history.json`, `published.json` and `report.html`.
        history: of its training, for the curves.
        limits: of each photograph.
        is_finished: whether the training has come to its end. An interrupted one is resumed by the same command.
        say: is told why one of these files is missing. The version is published all the same.

    Returns:
        The version, and its evaluation on the test part.

    Raises:
        PublishError: The version could not be written.
    """
    with publish_version(store, trained.name) as draft:
        test = write_version(draft.folder, trained, rule=RULE, limits=limits)
    try:
        write_published(run, trained, draft.version, test, history, is_finished=is_finished, rule=RULE, limits=limits)
    except (Exception, KeyboardInterrupt) as error:  # the version is out, whatever a figure or a file runs into
        if say is not None:
            why = "it was interrupted" if isinstance(error, KeyboardInterrupt) else str(error) or repr(error)
            say(
                f"Version {draft.version} of {trained.name} is published, but its report in {run} is not complete: "
                f"{why}. `flowers evaluate FOLDER --report FILE` writes another."
            )
    return draft.version, test.evaluation


def learn(
    recipe: Recipe,
    photographs: LabelledPixels,
    validation: LabelledPixels | None,
    check: DataCheck,
    seed: int,
    device: str,
    folder: Path,
    observer: Observer,
) -> tuple[Fitted, float | None]:
    """Teach by `recipe`: the teacher first, if there is one, then the network.

    Args:
        recipe: how.
        photographs: whole ones, to train on.
        validation: squares to choose the epoch by; None: the last.
        check: names the classes.
        seed: of initial weights, order and views.
        device: "cpu" or "gpu".
        folder: for checkpoints; those that are there are gone on from.
        observer: is told how it goes.

    Returns:
        The trained network, and the accuracy of its teacher on `validation`, if there are both.
    """
    make_folder(folder)
    photographs = photographs.repeated(-(-_MIN_EPOCH // len(photographs.images)))
    num_classes = len(check.class_names)
    is_taught, lesson = recipe.teacher != "none", None
    view = training_view(recipe, RULE)
    views = Views(photographs.images, view, seed, recipe.num_views if is_taught else 0)
    with keras.device(f"{device}:0"):
        if is_taught:
            observer.stage(f"loading {recipe.teacher}")
            lesson = prepare_lesson(
                load_backbone(recipe.teacher), recipe, num_classes, photographs, views, validation,
                rule=RULE, seed=seed, cache=folder / "lesson.npz", progress=observer.teaching,
            )  # fmt: skip
            observer.taught(recipe.teacher, lesson.accuracy)
        observer.stage("building the network")
        fitted = fit(
            recipe, num_classes, views, photographs.class_indices, validation,
            seed=seed, checkpoint=folder / "checkpoint.npz", watcher=observer, lesson=lesson,
        )  # fmt: skip
    return fitted, lesson.accuracy if lesson else None


def plain_network(trained: keras.Model, recipe: Recipe) -> keras.Model:
    """What is published: the recipe's network without batch normalisation, which is folded into its weights."""
    # On the CPU, as the check of the export computes: a GPU in TensorFloat-32 differs by 1e-3.
    with keras.device("cpu:0"):
        return fold_batch_norm(trained, NETWORKS[recipe.network](trained.output_shape[-1]))


def _split(check: DataCheck, seed: int) -> Split:
    refuse_lost_classes(check)
    try:
        return split_photographs(check, seed)
    except DatasetError as error:
        raise DatasetError(f"{error} {describe_losses(check)}".rstrip()) from error


def _digest_run(name: str, recipe: Recipe, seed: int, device: str, check: DataCheck) -> str:
    # Where a class is split by sequence, its file names decide who is learned from.
    names = [one.file for one in check.photographs if one.label in check.sequences]
    identity = json.dumps([name, asdict(recipe), seed, device, check.digest, *names], sort_keys=True)
    return hashlib.sha256(identity.encode()).hexdigest()[:8]


def _is_in(store: Path, published: dict[str, Any]) -> bool:
    return published["version"] in {stored.version for stored in list_stored(store, published["model"])}


def _read_trained(run: Path, published: dict[str, Any], device: str) -> Trained:
    try:
        history = tuple(Epoch(**row) for row in json.loads((run / "history.json").read_bytes()))
        test = Evaluation.from_dict(published["test"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise TrainingError(
            f"{run} was finished, but its history.json or published.json cannot be read: train it anew with --again"
        ) from error
    return Trained(published["model"], published["version"], device, run, history, False, test)
