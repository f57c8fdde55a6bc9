"""The article's experiment on this machine, and its table: `python benchmarks/article.py FOLDER`.

Runs `flowers train --recipe article` on each device there is, into a store and run folders of its own, and writes
`benchmarks/results/article.json`: device, seconds per epoch, accuracy on the test part, and the machine in words.

With another backend of Keras, such as `KERAS_BACKEND=jax` where TensorFlow has no build for the GPU, nothing can be
exported: the same training runs on Keras's first device, the network is evaluated as it stands, and the result is
`article-<backend>.json`. That in the repository is of a first form, which trained on photographs made smaller, and
whose network was evaluated on another machine.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from service.cli.doctor import describe_cpu, describe_memory, find_packages
from service.engines.found import list_driver_gpus

RESULTS = Path(__file__).with_name("results")


def describe_machine() -> dict[str, object]:
    """Cores, vector extensions, memory and GPUs, in words; no name, no path."""
    return {
        "cpu": describe_cpu(),
        "memory": describe_memory().get("total"),
        "gpu": list_driver_gpus() or "none",
        "packages": {name: version for name, version in find_packages().items() if version},
    }


def train_and_export(folder: Path) -> list[dict[str, Any]]:
    """`flowers train`: a row for each device."""
    with tempfile.TemporaryDirectory(prefix="flowers-article-") as scratch:
        command = [sys.executable, "-m", "service", "train", str(folder), "--recipe", "article", "--json"]
        places = ["--model-store", f"{scratch}/store", "--runs", f"{scratch}/runs"]
        process = subprocess.run([*command, *places], stdout=subprocess.PIPE, text=True, check=True)
    return [{key: value for key, value in row.items() if key != "run"} for row in json.loads(process.stdout)]


class Printer:
    """Watches a training."""

    def step(self, epoch: int, step: int, num_steps: int, loss: float, accuracy: float, images_per_s: float) -> None:
        """Nothing: there are many."""

    def epoch(self, result: Any) -> None:
        """Print it."""
        print(result, flush=True)

    def say(self, sentence: str) -> None:
        """Print it."""
        print(sentence, flush=True)


def train_only(folder: Path, epochs: int | None = None, seed: int = 0) -> list[dict[str, Any]]:
    """The same training without TensorFlow: one row, of the first device; `epochs` instead of the recipe's."""
    import keras

    from service.data.batches import load_squares, load_whole
    from service.data.check import check_folder
    from service.data.folder import read_folder
    from service.data.split import split_photographs
    from service.data.views import Views
    from service.imaging.pixels import ImageLimits, ResizeRule
    from service.training.augment import training_view
    from service.training.checkpoint import seconds_per_epoch
    from service.training.fit import fit, predict_logits
    from service.training.recipe import find_recipe

    rule, limits, recipe = ResizeRule(), ImageLimits(), find_recipe("article")
    recipe = replace(recipe, epochs=epochs or recipe.epochs)
    check = check_folder(read_folder(folder), limits)
    split = split_photographs(check, seed)
    whole = load_whole(split.photographs["train"], check.class_names, rule.shorter_side, limits)
    validation, test = (
        load_squares(split.photographs[part], check.class_names, rule, limits) for part in ("validation", "test")
    )
    views = Views(whole.images, training_view(recipe, rule), seed)
    device = keras.distribution.list_devices()[0]
    with tempfile.TemporaryDirectory(prefix="flowers-article-") as scratch, keras.device(device):
        fitted = fit(
            recipe, len(check.class_names), views, whole.class_indices, validation,
            seed=seed, checkpoint=Path(scratch, "checkpoint.npz"), watcher=Printer(),
        )  # fmt: skip
        answers = predict_logits(fitted.model, test, recipe).argmax(axis=1)
    return [
        {
            "device": device.split(":")[0],
            "backend": keras.backend.backend(),
            "epochs": len(fitted.history),
            "seconds_per_epoch": seconds_per_epoch(fitted.history),
            "test_accuracy": float((answers == test.class_indices).mean()),
        }
    ]


def main() -> None:
    """Train, print the table, write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="the photographs, one folder per class")
    arguments = parser.parse_args()
    backend = os.environ.get("KERAS_BACKEND", "tensorflow")
    results = train_and_export(arguments.folder) if backend == "tensorflow" else train_only(arguments.folder)
    RESULTS.mkdir(exist_ok=True)
    text = json.dumps({"machine": describe_machine(), "results": results}, indent=1) + "\n"
    name = "article.json" if backend == "tensorflow" else f"article-{backend}.json"
    (RESULTS / name).write_text(text, encoding="utf-8")
    print("| device | seconds per epoch | test accuracy |\n|---|---|---|")
    for row in results:
        print(f"| {row['device']} | {row['seconds_per_epoch']:.1f} | {100 * row['test_accuracy']:.2f} % |")


if __name__ == "__main__":
    main()
