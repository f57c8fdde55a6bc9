"""The whole training, top to bottom: check, split, fit, fold, calibrate, export, evaluate, publish."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Protocol

import keras
import numpy as np

from service.data.batches import LabelledPixels, load_squares, load_whole
from service.data.check import DataCheck, check_folder
from service.data.folder import read_folder
from service.data.split import Part, Split, split_photographs, split_to_json
from service.engines.select import load_engine
from service.errors import DeviceUnavailable, TrainingError
from service.evaluation.folder import stated_metrics
from service.evaluation.metrics import Evaluation, evaluate
from service.evaluation.score import score_photographs
from service.imaging.pixels import ImageLimits, ResizeRule
from service.networks.alexnet import NETWORKS
from service.store.layout import METADATA_FILE, SPLIT_FILE
from service.store.metadata import Metadata, Network, Preprocessing
from service.store.publish import Draft, check_can_publish, publish_version
from service.training.calibrate import confidence_threshold, fit_temperature, softmax
from service.training.checkpoint import Epoch
from service.training.export import check_saved_model, export_saved_model
from service.training.figures import draw_confusion, draw_curves
from service.training.fit import Fitted, Watcher, fit, predict_logits
from service.training.fold import fold_batch_norm
from service.training.recipe import Recipe

RULE = ResizeRule()
LIMITS = ImageLimits()
_NUM_CHECKED = 33  # photographs that the reloaded SavedModel is compared on; odd, so that no batch size is round


class Observer(Watcher, Protocol):
    """Who is told about the stages, too; the default of each is silence."""

    def checking(self, done: int, total: int) -> None:
        """So many photographs of so many are checked."""

    def checked(self, check: DataCheck, split: Split) -> None:
        """The data is known; nothing has been trained yet."""

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

    Raises:
        DatasetError: the folder cannot be trained on.
        PublishError: the store cannot be written; found out before the training as well.
        TrainingError: the training could not go on, or the run folder cannot be written.
    """
    listed = read_folder(folder)
    check_can_publish(store, name)
    check = check_folder(listed, LIMITS, observer.checking)
    split = split_photographs(check, seed)
    observer.checked(check, split)
    run = _open_run(runs, name, recipe, seed, device, check)
    _describe_run(run, recipe, seed, device, check, split)
    observer.stage("decoding")
    whole = load_whole(split.photographs["train"], check.class_names, RULE.shorter_side, LIMITS)
    validation = load_squares(split.photographs["validation"], check.class_names, RULE, LIMITS)
    with keras.device(f"{device}:0"):
        fitted = fit(
            recipe, len(check.class_names), whole, validation,
            rule=RULE, seed=seed, checkpoint=run / "checkpoint.npz", watcher=observer,
        )  # fmt: skip
    observer.stage("exporting and evaluating")
    with publish_version(store, name) as draft:
        test = _export(draft, fitted, name, recipe, seed, device, check, split, validation)
    _write(run / "history.json", [asdict(epoch) for epoch in fitted.history])
    draw_curves(fitted.history, run / "curves.svg")
    draw_confusion(test.confusion, check.class_names, f"{name} {draft.version}, test part", run / "confusion.svg")
    _write(run / "published.json", {"model": name, "version": draft.version, "test": json.loads(test.to_json())})
    return Trained(name, draft.version, device, run, fitted.history, fitted.interrupted, test)


def _export(
    draft: Draft,
    fitted: Fitted,
    name: str,
    recipe: Recipe,
    seed: int,
    device: str,
    check: DataCheck,
    split: Split,
    validation: LabelledPixels,
) -> Evaluation:
    """Write the version's files into the draft; everything said of it is measured on what was written."""
    with keras.device("cpu:0"):  # as the check of the export computes: a GPU in TensorFloat-32 differs by 1e-3
        network = fold_batch_norm(fitted.model, NETWORKS[recipe.network](len(check.class_names)))
        logits = predict_logits(network, validation, recipe)
    temperature = fit_temperature(logits, validation.class_indices)
    probabilities = softmax(logits, temperature).astype("float32")
    export_saved_model(network, draft.folder, scale=recipe.scale, offset=recipe.offset, temperature=temperature)
    check_saved_model(draft.folder, np.asarray(validation.images[:_NUM_CHECKED]), probabilities[:_NUM_CHECKED])
    engine = load_engine(draft.folder, engine="savedmodel", device="cpu")
    evaluations: dict[Part, Evaluation] = {}
    parts: tuple[Part, ...] = ("validation", "test")
    for part in parts:
        photographs = split.photographs[part]
        scores = score_photographs(engine, [photograph.path for photograph in photographs], RULE, LIMITS)
        truth = np.array([check.class_names.index(photograph.label) for photograph in photographs])
        evaluations[part] = evaluate(scores, truth, check.class_names)
    engine.close()
    split_list = split_to_json(split)
    metadata = Metadata(
        model=name,
        class_names=list(check.class_names),
        preprocessing=Preprocessing(
            shorter_side=RULE.shorter_side,
            image_size=RULE.image_size,
            scale=recipe.scale,
            offset=recipe.offset,
        ),
        network=Network(name=recipe.network, num_classes=len(check.class_names), num_parameters=network.count_params()),
        recipe={**asdict(recipe), "seed": seed, "device": device, "epochs_done": len(fitted.history)},
        data_digest=check.digest,
        split_digest=hashlib.sha256(split_list.encode()).hexdigest(),
        metrics=[stated_metrics(evaluation, part) for part, evaluation in evaluations.items()],
        temperature=temperature,
        confidence_threshold=confidence_threshold(probabilities),
        created=datetime.now(UTC).replace(microsecond=0),
        libraries=_library_versions(("keras", "tensorflow", "tensorflow-cpu", "numpy", "pillow")),
    )
    (draft.folder / SPLIT_FILE).parent.mkdir(exist_ok=True)
    (draft.folder / SPLIT_FILE).write_text(split_list, encoding="utf-8")
    (draft.folder / METADATA_FILE).write_text(metadata.model_dump_json(indent=1) + "\n", encoding="utf-8")
    return evaluations["test"]


def _library_versions(names: Sequence[str]) -> dict[str, str]:
    found = {}
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:  # tensorflow and tensorflow-cpu are never installed together
            continue
    return found


def _open_run(runs: Path, name: str, recipe: Recipe, seed: int, device: str, check: DataCheck) -> Path:
    identity = json.dumps([name, asdict(recipe), seed, device, check.digest], sort_keys=True)
    digest = hashlib.sha256(identity.encode()).hexdigest()[:8]
    number = 1
    while (
        (folder := runs / f"{name}-{digest}{'' if number == 1 else f'-{number}'}").joinpath("published.json").exists()
    ):
        number += 1
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise TrainingError(f"the run folder {folder} cannot be made: {error.strerror}") from error
    return folder


def _describe_run(run: Path, recipe: Recipe, seed: int, device: str, check: DataCheck, split: Split) -> None:
    _write(run / "recipe.json", {**asdict(recipe), "seed": seed, "device": device})
    set_aside = [asdict(finding) for finding in split.set_aside]
    _write(run / "data_check.json", {**json.loads(check.to_json()), "set_aside_by_the_split": set_aside})
    try:
        (run / "split.json").write_text(split_to_json(split), encoding="utf-8")
    except OSError as error:
        raise TrainingError(f"the run folder {run} cannot be written: {error.strerror}") from error


def _write(path: Path, value: object) -> None:
    try:
        path.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    except OSError as error:
        raise TrainingError(f"{path} cannot be written: {error.strerror}") from error
