"""Rungs of the recipe `transfer` where the upper layers are tuned: networks, epochs, depth and views.

    python benchmarks/tuning.py FOLDER --rungs lite0 lite2 --seeds 0 1

Each rung changes values of BASE. A network learns from the training part of FOLDER. Stated is the accuracy on the
validation part, which the recipe was chosen by, and on the test part. With `--mean` a second network learns from both
other parts, and the mean of both networks is measured on the test part, too. Each rung and seed has a row in
`benchmarks/results/tuning.json`. It is replaced when they are measured again.
"""

import argparse
import json
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from machine import RESULTS, describe_machine

from service.data.batches import LabelledPixels
from service.data.dataset import Dataset, open_dataset
from service.data.folder import read_folder
from service.imaging.limits import ImageLimits
from service.networks.backbones import LITE_OFFSET, LITE_SCALE
from service.training.checkpoint import Epoch
from service.training.fit import measure_logits, predict
from service.training.observer import Observer
from service.training.recipe import Augmentation, TransferRecipe, recipe_values
from service.training.run import Run
from service.training.schedule import Schedule
from service.training.trained_network import on_pixels
from service.training.transfer import learn_frozen
from service.training.tune import Tuned, tune

RESULT = RESULTS / "tuning.json"
BASE = TransferRecipe(
    name="base",
    network="efficientnet_lite0",
    schedule=Schedule(
        epochs=6, batch_size=32, learning_rate=5e-4, warmup_epochs=0.5, cosine=True, weight_decay=0.05,
        average_decay=0.98,
    ),
    augmentation=Augmentation(flip=True, min_area=0.25, color=0.25),
)  # fmt: skip
GENTLE = replace(
    BASE, tuned=0.7, augmentation=Augmentation(flip=True, min_area=0.35, color=0.25),
    schedule=replace(BASE.schedule, epochs=4, learning_rate=4e-4, average_decay=0.99),
)  # fmt: skip
LITE2 = "efficientnet_lite2"
SHORT = replace(BASE.schedule, epochs=4)
RUNGS = {
    "lite0": BASE,
    "lite2": replace(BASE, network=LITE2),
    "lite2 short": replace(BASE, network=LITE2, schedule=SHORT),
    "lite0 gentle": GENTLE,
    "lite2 gentle": replace(GENTLE, network=LITE2),
}
"""Recipes by the name of their rung."""


class Printer(Observer):
    """Prints every epoch."""

    def epoch(self, result: Epoch) -> None:
        """Print the end of an epoch."""
        print(f"  {result}", flush=True)


def measure(dataset: Dataset, recipe: TransferRecipe, scratch: Path, *, is_mean: bool) -> dict[str, Any]:
    """Tune a network, and perhaps a second one. Return the accuracies and the minutes."""
    run = Run(scratch / f"{recipe.network}-{dataset.seed}", "drawn", scratch, "cpu")
    run.make()
    training, validation = dataset.squares("train"), dataset.squares("validation")
    frozen = learn_frozen(dataset, recipe, run, Observer(), training, validation)
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        first = Run(Path(folder, "first"), "drawn", scratch, "cpu")
        tuned = tune(dataset, recipe, first, Printer(), frozen.of_training, ("train",), validation)
        row = {part: evaluate(tuned, dataset.squares(part)) for part in ("validation", "test")}
        if is_mean:
            second = Run(Path(folder, "second"), "drawn", scratch, "cpu")
            mean = tune(dataset, recipe, second, Printer(), frozen.of_both, ("train", "validation"), None, tuned)
            row["test_of_mean"] = evaluate(mean, dataset.squares("test"))
    return {"minutes": (time.perf_counter() - began) / 60, **row}


def evaluate(tuned: Tuned, squares: LabelledPixels) -> dict[str, Any]:
    """Return number of photographs, accuracy and mean cross-entropy of a network."""
    logits = predict(on_pixels(tuned.network, LITE_SCALE, LITE_OFFSET), np.asarray(squares.images))["logits"]
    loss, accuracy = measure_logits(logits, squares.class_indices)
    return {"num_photographs": len(logits), "accuracy": accuracy, "loss": loss}


def save(row: dict[str, Any]) -> None:
    """Add a row to the results, or replace that of the same rung and seed."""
    document = json.loads(RESULT.read_text(encoding="utf-8")) if RESULT.exists() else {"rows": []}
    keys = "rung", "seed"
    rows = [one for one in document["rows"] if any(one[key] != row[key] for key in keys)]
    document = {"machine": describe_machine(), "rows": [*rows, row]}
    RESULT.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


def main() -> None:
    """Tune each rung with each seed, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="the photographs, one folder per class")
    parser.add_argument("--rungs", nargs="+", choices=sorted(RUNGS), default=sorted(RUNGS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1])
    parser.add_argument("--mean", action="store_true", help="tune a second network, and measure the mean, too")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="flowers-tuning-") as scratch:
        for seed in asked.seeds:
            dataset = open_dataset(read_folder(asked.folder), seed, ImageLimits())
            for rung in asked.rungs:
                recipe = RUNGS[rung]
                print(rung, seed, flush=True)
                found = measure(dataset, recipe, Path(scratch), is_mean=asked.mean)
                row = {"rung": rung, "seed": seed, **found, "recipe": recipe_values(recipe)}
                print(json.dumps({key: row[key] for key in row if key != "recipe"}), flush=True)
                save(row)


if __name__ == "__main__":
    main()
