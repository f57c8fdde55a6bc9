"""The article's experiment on this machine.

    python benchmarks/article.py FOLDER

It runs `flowers train --recipe article` on each device there is, into a store and run folders of its own. It writes
device, seconds per epoch, accuracy on the test part and machine into `benchmarks/results/article.json`.

With another backend of Keras, such as `KERAS_BACKEND=jax`, nothing can be exported. The same training then runs on
Keras's first device, and the network is evaluated as it stands. The result is `article-<backend>.json`. That in the
repository is of a first form. It trained on smaller photographs, and was evaluated on another machine.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import service  # noqa: F401 - before Keras, whose files it keeps in the cache folder

# isort: split
from machine import RESULTS, describe_machine


def train_and_export(folder: Path) -> list[dict[str, Any]]:
    """Run `flowers train`, and return a row for each device."""
    with tempfile.TemporaryDirectory(prefix="flowers-article-") as scratch:
        command = [sys.executable, "-m", "service", "train", str(folder), "--recipe", "article", "--json"]
        places = ["--model-store", f"{scratch}/store", "--runs", f"{scratch}/runs"]
        process = subprocess.run([*command, *places], stdout=subprocess.PIPE, text=True, check=True)
    return [{key: value for key, value in row.items() if key != "run"} for row in json.loads(process.stdout)]


def train_only(folder: Path, epochs: int | None = None, seed: int = 0) -> list[dict[str, Any]]:
    """Train without an export, and return the row of the first device. `epochs` replaces the recipe's."""
    import keras

    from service.data.dataset import open_dataset
    from service.data.folder import read_folder
    from service.imaging.limits import ImageLimits
    from service.training.alexnet import answer, fit_alexnet
    from service.training.checkpoint import Epoch, seconds_per_epoch
    from service.training.observer import Observer
    from service.training.recipe import AlexNetRecipe, find_recipe
    from service.training.run import Run

    class Printer(Observer):
        def epoch(self, result: Epoch) -> None:
            print(result, flush=True)

    recipe = find_recipe("article", epochs=epochs)
    assert isinstance(recipe, AlexNetRecipe)
    dataset = open_dataset(read_folder(folder), seed, ImageLimits())
    device = keras.distribution.list_devices()[0].split(":")[0]
    with tempfile.TemporaryDirectory(prefix="flowers-article-") as scratch:
        run = Run(Path(scratch), "article", Path(scratch), device)
        photographs, validation = dataset.full_images("train"), dataset.squares("validation")
        fitted = fit_alexnet(dataset, recipe, run, Printer(), photographs, validation)
    test = dataset.squares("test")
    return [
        {
            "device": device,
            "backend": keras.backend.backend(),
            "epochs": len(fitted.history),
            "seconds_per_epoch": seconds_per_epoch(fitted.history),
            "test_accuracy": float((answer(fitted.network, recipe, test).argmax(axis=1) == test.class_indices).mean()),
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
