"""Accuracy that each part of the recipe gains.

    python benchmarks/accuracy.py FOLDER [--seeds 0 1] [--rungs NAME...]

Every rung changes one thing of the rung below. It learns the training part for the same number of epochs, with each
seed of weights, order and views. It is measured on the validation part, plain and averaged with its mirror image. The
test part is not touched. This takes hours. The same command goes on from `--runs`. It writes
`benchmarks/results/accuracy.json`, and from that and `in_memory.json` it writes `benchmarks/accuracy.md`.
"""

import argparse
import hashlib
import json
import os
import shutil
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import service  # noqa: F401 - before Keras, whose files it keeps in the cache folder

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"

import keras
import numpy as np
from machine import RESULTS, describe_machine

from service.data.batches import LabelledPixels
from service.data.dataset import Dataset, open_dataset
from service.data.folder import read_folder
from service.imaging.limits import ImageLimits
from service.networks.alexnet import NETWORKS, alexnet_v2
from service.training.alexnet import answer, fit_alexnet
from service.training.checkpoint import Epoch
from service.training.observer import Observer
from service.training.recipe import AlexNetRecipe, Augmentation, Teaching, find_recipe
from service.training.run import Run
from service.training.schedule import Schedule

EPOCHS = 30
OFF = Augmentation(flip=False)
BEST = cast("AlexNetRecipe", find_recipe("default"))
FROZEN = Teaching("efficientnet_lite2", tuned=0.0, temperature=2.0)
PIXEL_SCALE = 127.5  # so many times smaller are the pixels here than the paper's


def local_response_norm(x: Any) -> Any:
    """Divide activations (N, H, W, C) by those of five channels around each (Krizhevsky et al. 2012, sec. 3.3)."""
    squares = keras.ops.square(keras.ops.cast(x, "float32"))
    padded = keras.ops.pad(squares, ((0, 0), (0, 0), (0, 0), (2, 2)))
    total = sum(padded[..., place : place + x.shape[-1]] for place in range(5))
    return x / keras.ops.cast((2 + 1e-4 * PIXEL_SCALE**2 * total) ** 0.75, x.dtype)  # the constants are the paper's


def alexnet_v2_lrn(num_classes: int, **options: Any) -> keras.Model:
    """Build AlexNet v2 with local response normalisation after the first two ReLUs, as in the paper."""

    def call(layer: keras.layers.Layer, x: Any, **given: Any) -> Any:
        x = layer(x, **given)
        normalised = layer.name in ("conv1_relu", "conv2_relu")
        return keras.layers.Lambda(local_response_norm, name=f"{layer.name}_lrn")(x) if normalised else x

    return keras.models.clone_model(alexnet_v2(num_classes, **options), call_function=call)


NETWORKS["alexnet_v2_lrn"] = alexnet_v2_lrn  # for the ladder only


@dataclass(frozen=True)
class Rung:
    """One change of a recipe's values and of its schedule's. `below` names the rung that it changes, if any."""

    name: str
    says: str
    changes: dict[str, Any] = field(default_factory=dict)
    below: str | None = None
    pace: dict[str, Any] = field(default_factory=dict)


LADDER = (
    Rung("plain", "AlexNet v2, labels, no augmentation, Adam at 1e-3"),
    Rung("LRN", "local response normalisation, as in the paper", {"network": "alexnet_v2_lrn"}, "plain"),
    Rung("batch norm", "batch normalisation before every ReLU, folded at export", {"batch_norm": True}, "plain"),
    Rung(
        "schedule",
        "warm-up, cosine, decoupled weight decay, average of the weights",
        {},
        "batch norm",
        {name: getattr(BEST.schedule, name) for name in ("warmup_epochs", "cosine", "weight_decay", "average_decay")},
    ),
    Rung(
        "views",
        "random crops, mirror images, colour",
        {"augmentation": replace(BEST.augmentation, mixup=0.0, cutmix=0.0)},
        "schedule",
    ),
    Rung(
        "mixup",
        "blends of two photographs, mostly uneven",
        {"augmentation": replace(BEST.augmentation, mixup=0.2, cutmix=0.0)},
        "views",
    ),
    Rung(
        "frozen teacher",
        "answers of EfficientNet-Lite2 with a new last layer as targets, T = 2",
        {"teaching": FROZEN},
        "mixup",
    ),
    Rung(
        "tuned teacher",
        "the upper half of the teacher trained on the photographs",
        {"teaching": replace(FROZEN, tuned=0.5)},
        "frozen teacher",
    ),
    Rung(
        "cutmix",
        "half of the views get a rectangle of another, the others are blended evenly",
        {"augmentation": BEST.augmentation},
        "tuned teacher",
    ),
    Rung(
        "mean of weights",
        "the last quarter of the epochs at a standing rate, and the mean of their weights",
        {},
        "cutmix",
        {name: getattr(BEST.schedule, name) for name in ("swa_share", "swa_learning_rate")},
    ),
)


def recipe_of(name: str) -> AlexNetRecipe:
    """Return the rung's recipe. It has the changes of all rungs below, too."""
    (rung,) = [rung for rung in LADDER if rung.name == name]
    if rung.below is None:
        return AlexNetRecipe(
            name="ladder", network="alexnet_v2", schedule=Schedule(EPOCHS, BEST.schedule.batch_size), augmentation=OFF,
            scale=BEST.scale, offset=BEST.offset,
        )  # fmt: skip
    below = recipe_of(rung.below)
    return replace(below, schedule=replace(below.schedule, **rung.pace), **rung.changes)


def lesson_of(recipe: AlexNetRecipe, seed: int, runs: Path) -> Path:
    """Return the path of the teacher's answers. Rungs that ask the same teacher about the same views share them."""
    asked = repr((recipe.teaching, recipe.augmentation, seed))
    return runs / f"lesson-{hashlib.sha256(asked.encode()).hexdigest()[:8]}.npz"


class Log(Observer):
    """Observer that prints every tenth epoch."""

    def __init__(self, name: str) -> None:
        self._name = name

    def taught(self, teacher: str, accuracy: float | None) -> None:
        print(f"{self._name}: {teacher} {accuracy}", flush=True)

    def say(self, sentence: str) -> None:
        print(f"{self._name}: {sentence}", flush=True)

    def epoch(self, result: Epoch) -> None:
        if result.epoch % 10 == 9:
            print(f"{self._name}: epoch {result.epoch + 1}, validation {result.validation_accuracy:.4f}", flush=True)


def measure(network: keras.Model, validation: LabelledPixels, recipe: AlexNetRecipe) -> dict[str, float]:
    """Measure the accuracy on the validation part, plain and averaged with the mirror image."""
    mirrored = LabelledPixels(np.asarray(validation.images)[:, :, ::-1], validation.class_indices)
    plain, other = (answer(network, recipe, squares) for squares in (validation, mirrored))
    return {
        "accuracy": float((plain.argmax(axis=1) == validation.class_indices).mean()),
        "with_mirror": float(((plain + other).argmax(axis=1) == validation.class_indices).mean()),
    }


def train(dataset: Dataset, name: str, seed: int, runs: Path) -> dict[str, Any]:
    """Train one rung, and return its row."""
    recipe, begun = recipe_of(name), time.perf_counter()
    run, lesson = Run(runs / f"{name}-{seed}", "ladder", runs, "cpu"), lesson_of(recipe, seed, runs)
    run.make()
    if lesson.exists():
        shutil.copy(lesson, run.folder / "lesson.npz")
    seeded = replace(dataset, split=replace(dataset.split, seed=seed))  # the parts stay
    photographs, validation = dataset.full_images("train"), dataset.squares("validation")
    fitted = fit_alexnet(seeded, recipe, run, Log(f"{name} {seed}"), photographs, validation)
    if recipe.teaching:
        shutil.copy(run.folder / "lesson.npz", lesson)
    return {
        "seed": seed,
        **measure(fitted.network, validation, recipe),
        "teacher": fitted.teacher_accuracy,
        "epochs": recipe.schedule.epochs,
        "seconds": time.perf_counter() - begun,
        "seconds_per_epoch": statistics.median(epoch.seconds for epoch in fitted.history),
    }


def to_markdown(document: dict[str, Any]) -> str:
    """Return the table. A rung's gain is against the rung that it changes."""
    means = {name: statistics.mean(run["accuracy"] for run in runs) for name, runs in document["rungs"].items()}
    lines = [
        "# What each part of the recipe is worth",
        "",
        "Made by `benchmarks/accuracy.py`; figures in `results/accuracy.json`. Accuracy on the validation part "
        f"({document['num_validation']} photographs: one standard error is about 1.5 points), {document['epochs']} "
        f"epochs; the test part was not looked at.{document.get('note', '')}",
        "",
        "| rung | what is new | on top of | validation, each seed | mean | gain | with mirror | s / epoch |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for rung in LADDER:
        runs = document["rungs"].get(rung.name)
        if not runs:
            continue
        each = ", ".join(f"{100 * run['accuracy']:.1f}" for run in runs)
        gain = f"{100 * (means[rung.name] - means[rung.below]):+.1f}" if rung.below in means else ""
        mirror = statistics.mean(run["with_mirror"] for run in runs)
        seconds = min(run["seconds_per_epoch"] for run in runs)
        lines.append(
            f"| {rung.name} | {rung.says} | {rung.below or ''} | {each} | {100 * means[rung.name]:.1f} | {gain} "
            f"| {100 * mirror:.1f} | {seconds:.0f} |"
        )
    return "\n".join(lines) + "\n" + in_memory_markdown()


def in_memory_markdown() -> str:
    """Return the table of the trainings in a GPU's memory."""
    document = json.loads((RESULTS / "in_memory.json").read_text(encoding="utf-8"))
    lines = [
        "",
        "## With everything in a GPU's memory",
        "",
        f"Made by an earlier form of `service/training/fit_on_device.py` on one {document['machine']['gpu']}; "
        f"figures in `results/in_memory.json`. {document['num_views']} views a photograph, no average of weights "
        "but the mean of the last quarter, one seed. Mixtures are of views that are mixed anew for each batch, "
        "their targets likewise; or mixed once, and answered by the teacher as they are. The log loss is that at "
        "the best temperature; the divergence is the mean of KL(teacher, network), likewise. The same 523 "
        "photographs, but compressed anew, as were those of the training: as they are, the last network here is "
        "right on 474 of them (90.6 %).",
        "",
        "| network | epochs | the teacher's features | answers to mixtures | other | accuracy | with mirror | log loss "
        "| divergence | as the teacher |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for run in document["runs"]:
        features = f"{run['features_from']}, weight {run['feature_weight']}" if run["features_from"] else ""
        other = [f"weight decay {run['weight_decay']}"] if run["weight_decay"] != BEST.schedule.weight_decay else []
        other += [f"rate {run['learning_rate']}"] if run["learning_rate"] != BEST.schedule.learning_rate else []
        answers = "the teacher's own" if run["answers_to_mixed_views"] else "blended"
        lines.append(
            f"| {run['network']} | {run['epochs']} | {features} | {answers} | {', '.join(other)} "
            f"| {100 * run['accuracy']:.1f} | {100 * run['with_mirror']:.1f} | {run['log_loss']:.3f} "
            f"| {run['divergence_from_teacher']:.3f} | {100 * run['agreement_with_teacher']:.1f} |"
        )
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> None:
    """Train what is missing, and write the table anew after each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="the photographs, one folder per class")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--rungs", nargs="+", default=[rung.name for rung in LADDER])
    parser.add_argument("--runs", type=Path, default=Path("runs/ladder"))
    asked = parser.parse_args(arguments)
    dataset = open_dataset(read_folder(asked.folder), 0, ImageLimits())
    num_validation = len(dataset.split.photographs["validation"])
    path = RESULTS / "accuracy.json"
    document: dict[str, Any] = {"rungs": {}}
    if path.exists():
        document = json.loads(path.read_text(encoding="utf-8"))
    document |= {"machine": describe_machine(), "epochs": EPOCHS, "num_validation": num_validation}
    for seed in asked.seeds:
        for name in asked.rungs:
            runs = document["rungs"].setdefault(name, [])
            if any(run["seed"] == seed for run in runs):
                continue
            runs.append(train(dataset, name, seed, asked.runs))
            path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
            (Path(__file__).parent / "accuracy.md").write_text(to_markdown(document), encoding="utf-8")
            keras.backend.clear_session()


if __name__ == "__main__":
    main()
