"""Speed of AlexNet v1's training here, and its limits.

    python benchmarks/training.py FOLDER

Measured are images per second at batch 32, in float32 and, where the CPU has the instructions, in bfloat16.

* `article` is the article's kind of pipeline. Keras loads, decodes and flips the JPEGs in every epoch of `model.fit`.
* `anew` decodes photographs once. Threads make the views of the recipe `default` ahead of the step.
* `kept` takes the same views once they are made. All but the first epochs of a taught training find them so.
* `step` takes a batch that lies in memory. No pipeline can do better.
* `arithmetic` is the rate of a large matrix product over the 1.85 GFLOP of an image and a step.

The five take turns for several rounds. The figures are medians with the least and the most. Run it when nothing else
runs. The results go to `benchmarks/results/training.json`.
"""

import argparse
import itertools
import json
import os
import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import service  # noqa: F401 - before Keras, whose files it keeps in the cache folder

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"

import keras
import numpy as np
from machine import RESULTS, describe_machine

from service.data.batches import LabelledPixels, epoch_batches, load_full_images
from service.data.check import check_folder
from service.data.folder import read_folder
from service.data.views import Views
from service.imaging.limits import ImageLimits, ResizeRule
from service.networks.alexnet import alexnet_v1
from service.training.augment import training_view
from service.training.keras_settings import compute_precision, fastest_precision
from service.training.recipe import find_recipe

BATCH_SIZE = 32
GFLOP_PER_IMAGE_AND_STEP = 1.85


def build(policy: str) -> keras.Model:
    """Build the article's network and optimizer, for uint8 images or for floats that are normalised alike."""
    with compute_precision(policy):
        network = alexnet_v1(5)
    pixels = keras.Input((224, 224, 3))
    model = keras.Model(pixels, network(keras.layers.Rescaling(1 / 255, dtype="float32")(pixels)))
    model.compile(keras.optimizers.Adam(1e-3), keras.losses.CategoricalCrossentropy(from_logits=True))
    return model


def article_rate(model: keras.Model, folder: Path, steps: int) -> float:
    """Return images per second of `model.fit` on files. One `fit` before warms up."""
    data = keras.utils.image_dataset_from_directory(
        folder, image_size=(224, 224), batch_size=BATCH_SIZE, label_mode="categorical", seed=0, verbose=False
    )
    flip = keras.layers.RandomFlip("horizontal")
    data = data.map(lambda images, labels: (flip(images), labels)).prefetch(2)
    model.fit(data.take(2), verbose=0)
    begun = time.perf_counter()
    model.fit(data.take(steps), verbose=0)
    return steps * BATCH_SIZE / (time.perf_counter() - begun)


def rate(model: keras.Model, batches: Iterator[tuple[Any, Any]], steps: int) -> float:
    """Return images per second of `train_on_batch`, after two steps of warm-up."""
    for _ in range(2):
        model.train_on_batch(*next(batches))
    begun = time.perf_counter()
    for _ in range(steps):
        model.train_on_batch(*next(batches))
    return steps * BATCH_SIZE / (time.perf_counter() - begun)


def forever(photographs: LabelledPixels, num_views: int = 0) -> Iterator[tuple[Any, Any]]:
    """Yield batches as a training makes them, epoch after epoch. Kept views are made beforehand."""
    recipe = find_recipe("default")
    labels = np.eye(5, dtype=np.float32)[photographs.class_indices]
    views = Views(photographs.images, training_view(recipe.augmentation, ResizeRule()), 0, num_views)
    assert views.is_keeping == (num_views > 0), "there is no memory to keep them"
    for epoch in range(num_views):
        for _ in epoch_batches(views, batch_size=BATCH_SIZE, epoch=epoch):
            pass
    for epoch in range(10**6):
        for batch in epoch_batches(views, batch_size=BATCH_SIZE, epoch=epoch):
            yield batch.images, labels[batch.photographs]


def arithmetic_rate(policy: str) -> float:
    """Return images per second if a step were nothing but its matrix products."""
    return matrix_gflop_per_s(policy) / GFLOP_PER_IMAGE_AND_STEP


def matrix_gflop_per_s(policy: str, size: int = 2048, repeats: int = 10) -> float:
    """Return the rate of one large matrix product, as the backend computes it."""
    dtype = "bfloat16" if policy == "mixed_bfloat16" else "float32"
    a = keras.ops.cast(np.random.default_rng(0).standard_normal((size, size)), dtype)
    _wait_for(keras.ops.matmul(a, a))
    begun = time.perf_counter()
    for _ in range(repeats):
        product = keras.ops.matmul(a, a)
    _wait_for(product)
    return repeats * 2 * size**3 / (time.perf_counter() - begun) / 1e9


def _wait_for(product: Any) -> None:
    """Wait for a backend that computes later than it is asked to. NumPy has no bfloat16."""
    keras.ops.convert_to_numpy(keras.ops.cast(product[0, 0], "float32"))


def main() -> None:
    """Measure in turns, print the table, write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="the photographs, one folder per class")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=20)
    arguments = parser.parse_args()
    check = check_folder(read_folder(arguments.folder), ImageLimits())
    photographs = load_full_images(check.photographs[::3], check.class_names, ResizeRule(), ImageLimits())
    in_memory = next(forever(photographs))
    policies = sorted({"float32", fastest_precision()})
    steps = arguments.steps
    measures: dict[str, Callable[[], float]] = {}
    for policy in policies:
        model = build(policy)
        anew, kept = forever(photographs), forever(photographs, num_views=2)
        measures |= {
            f"anew, {policy}": partial(rate, model, anew, steps),
            f"kept, {policy}": partial(rate, model, kept, steps),
            f"step, {policy}": partial(rate, model, itertools.repeat(in_memory), steps),
            f"arithmetic, {policy}": partial(arithmetic_rate, policy),
        }
    article = build("float32")
    measures["article, float32"] = lambda: article_rate(article, arguments.folder, steps)
    rates: dict[str, list[float]] = {name: [] for name in measures}
    for _ in range(arguments.rounds):
        for name, measure in measures.items():
            rates[name].append(measure())
    medians = {name: statistics.median(values) for name, values in rates.items()}
    ratios = {}
    for policy in policies:
        for ours in ("anew", "kept"):
            for other in ("article, float32", f"step, {policy}"):
                pairs = zip(rates[f"{ours}, {policy}"], rates[other], strict=True)
                ratios[f"{ours}, {policy} / {other}"] = statistics.median(mine / theirs for mine, theirs in pairs)
    result = {
        "machine": describe_machine(),
        "batch_size": BATCH_SIZE,
        "images_per_s": {
            name: {"median": medians[name], "min": min(values), "max": max(values)} for name, values in rates.items()
        },
        "ratios": ratios,
    }
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "training.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print("| measured | images/s, median (least-most) |\n|---|---|")
    for name, values in rates.items():
        print(f"| {name} | {medians[name]:.0f} ({min(values):.0f}-{max(values):.0f}) |")
    for name, ratio in ratios.items():
        print(f"{name}: {ratio:.2f}")


if __name__ == "__main__":
    main()
