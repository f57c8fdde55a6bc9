"""The whole training, top to bottom: check, split, fit, fold, calibrate, export, evaluate, publish."""

import hashlib
import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

import keras
import numpy as np

from service.data.batches import LabelledPixels, load_squares, load_whole
from service.data.check import DataCheck, check_folder
from service.data.folder import read_folder
from service.data.losses import describe_losses, refuse_lost_classes
from service.data.split import Split, split_photographs, split_to_json
from service.data.views import Views
from service.errors import DatasetError, DeviceUnavailable, TrainingError
from service.evaluation.metrics import Evaluation
from service.evaluation.page import Section, render_page, to_section, to_table
from service.imaging.pixels import ImageLimits, ResizeRule
from service.networks.alexnet import NETWORKS
from service.networks.backbones import load_backbone
from service.store.publish import check_can_publish, publish_version
from service.training.augment import training_view
from service.training.calibrate import calibrate
from service.training.checkpoint import Epoch, seconds_per_epoch
from service.training.figures import draw_curves
from service.training.fit import Fitted, Watcher, fit, predict_logits
from service.training.fold import fold_batch_norm
from service.training.recipe import Recipe
from service.training.teach import prepare_lesson
from service.training.version_files import TrainedNetwork, write_version

RULE = ResizeRule()
LIMITS = ImageLimits()
_MIN_EPOCH = 1024  # views; a smaller folder is gone through several times, so that an epoch is worth its validation


class Observer(Watcher, Protocol):
    """Who is told about the stages, too; the default of each is silence."""

    def checking(self, done: int, total: int) -> None:
        """So many photographs of so many are checked."""

    def found(self, check: DataCheck) -> None:
        """The photographs are checked. They are not divided yet, and perhaps cannot be."""

    def checked(self, check: DataCheck, split: Split) -> None:
        """The data is known; nothing has been trained yet."""

    def teaching(self, what: str, done: int, total: int) -> None:
        """The teacher has done so much of what it does."""

    def taught(self, teacher: str, accuracy: float | None) -> None:
        """The teacher is ready; `accuracy` is its own, on the validation part."""

    def stage(self, name: str) -> None:
        """A stage begins that shows no progress of its own."""


@dataclass(frozen=True)
class Trained:
    """A published version, how it was reached and what it is worth on the test part."""

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
        raise DeviceUnavailable(
            f"no GPU: {keras.backend.backend()} sees none here; `flowers doctor` says what is missing"
        )
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
) -> Trained:
    """Train by `recipe` on a folder of class folders, and publish the result as the next version of `name`.

    The run folder `runs/<name>-<digest>` is named after everything that shapes the result, so the same command finds
    the checkpoint of a run that was interrupted and goes on; a finished run is left as it is, and a new one begun.

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

    Raises:
        DatasetError: the folder cannot be trained on.
        PublishError: the store cannot be written; found out before the training as well.
        WeightsError: the teacher's weights are not installed, or are not the known ones.
        TrainingError: the training could not go on, or the run folder cannot be written.
    """
    listed = read_folder(folder)
    check_can_publish(store, name)
    check = check_folder(listed, limits, observer.checking)
    observer.found(check)
    split = _split(check, seed)
    observer.checked(check, split)
    run = _open_run(runs, name, recipe, seed, device, check)
    _describe_run(run, recipe, seed, device, check, split)
    observer.stage("decoding")
    whole = load_whole(split.photographs["train"], check.class_names, RULE.shorter_side, limits)
    validation = load_squares(split.photographs["validation"], check.class_names, RULE, limits)
    fitted, teacher_accuracy = learn(recipe, whole, validation, check, seed, device, run, observer)
    network, unseen, is_refitted = plain_network(fitted.model, recipe), validation, False
    calibration = calibrate(predict_logits(network, validation, recipe), validation.class_indices)
    if recipe.refit and not fitted.interrupted:
        with suppress(KeyboardInterrupt):  # before its first epoch was done, as while its teacher learns
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
    version, test = publish_network(trained, store, run, fitted.history, limits)
    return Trained(name, version, device, run, fitted.history, fitted.interrupted, test)


def publish_network(
    trained: TrainedNetwork, store: Path, run: Path, history: Sequence[Epoch], limits: ImageLimits = LIMITS
) -> tuple[int, Evaluation]:
    """Export a trained network as the next version of its model, evaluate it, and write the run's last files.

    Args:
        trained: the network, and what is said of it.
        store: the model store.
        run: the run folder, for `history.json`, `published.json` and `report.html`.
        history: of its training, for the curves.
        limits: of each photograph.

    Returns:
        The version, and its evaluation on the test part.

    Raises:
        PublishError, TrainingError: as of `train`.
    """
    with publish_version(store, trained.name) as draft:
        test = write_version(draft.folder, trained, rule=RULE, limits=limits)
    published = {"model": trained.name, "version": draft.version, "test": test.evaluation.to_dict()}
    _write(run / "history.json", [asdict(epoch) for epoch in history])
    _write(run / "published.json", published)
    sections = [
        to_section("Training", draw_curves(history)),
        Section("Recipe", to_table(list(trained.described.items()))),
        Section("Photographs", _describe_data(trained.check, trained.split)),
    ]
    title = f"{trained.name}, version {draft.version}, on the test part"
    page = render_page(title, test.evaluation, test.answers, RULE, limits, sections)
    _write_text(run / "report.html", page)
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
    _make(folder)
    photographs = photographs.repeated(-(-_MIN_EPOCH // len(photographs.images)))
    num_classes = len(check.class_names)
    is_taught, lesson = recipe.teacher != "none", None
    view = training_view(recipe, RULE)
    views = Views(photographs.images, view, seed, recipe.num_views if is_taught else 0)
    with keras.device(f"{device}:0"):
        if is_taught:
            lesson = prepare_lesson(
                load_backbone(recipe.teacher), recipe, num_classes, photographs, views, validation,
                rule=RULE, seed=seed, cache=folder / "lesson.npz", progress=observer.teaching,
            )  # fmt: skip
            observer.taught(recipe.teacher, lesson.accuracy)
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


def _open_run(runs: Path, name: str, recipe: Recipe, seed: int, device: str, check: DataCheck) -> Path:
    # Where a class is split by sequence, its file names decide who is learned from.
    names = [one.file for one in check.photographs if one.label in check.sequences]
    identity = json.dumps([name, asdict(recipe), seed, device, check.digest, *names], sort_keys=True)
    digest = hashlib.sha256(identity.encode()).hexdigest()[:8]
    number = 1
    while (
        (folder := runs / f"{name}-{digest}{'' if number == 1 else f'-{number}'}").joinpath("published.json").exists()
    ):
        number += 1
    _make(folder)
    return folder


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise TrainingError(f"the run folder {folder} cannot be made: {error.strerror}") from error


def _describe_run(run: Path, recipe: Recipe, seed: int, device: str, check: DataCheck, split: Split) -> None:
    _write(run / "recipe.json", {**asdict(recipe), "seed": seed, "device": device})
    set_aside = [asdict(finding) for finding in split.set_aside]
    _write(run / "data_check.json", {**check.to_dict(), "set_aside_by_the_split": set_aside})
    _write_text(run / "split.json", split_to_json(split))


def _describe_data(check: DataCheck, split: Split) -> str:
    sizes = [(part, len(photographs)) for part, photographs in split.photographs.items()]
    findings = [(finding.sentence,) for finding in (*check.findings, *split.set_aside)]
    return to_table(sizes, ("part", "photographs")) + to_table(findings, ("found",))


def _write(path: Path, value: object) -> None:
    _write_text(path, json.dumps(value, indent=1, ensure_ascii=False) + "\n")


def _write_text(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise TrainingError(f"{path} cannot be written: {error.strerror}") from error
