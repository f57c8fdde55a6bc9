"""A small training that tests run here, or in another process that they kill: `python fitting.py CHECKPOINT`."""

import sys
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
from support.drawing import CLASS_NAMES, draw_photograph

from service.data.batches import LabelledPixels
from service.data.cache import PixelCache
from service.data.views import Views
from service.imaging.limits import ResizeRule
from service.imaging.resize import resize
from service.networks.backbones import LITE_OFFSET, LITE_SCALE, Backbone
from service.training.augment import training_view
from service.training.checkpoint import Epoch
from service.training.distributed import ALONE, Cluster
from service.training.fit import Fitted, fit
from service.training.observer import Observer
from service.training.recipe import AlexNetRecipe, Augmentation, TransferRecipe
from service.training.schedule import Schedule
from service.training.targets import LabelTargets, Targets
from service.training.trained_network import on_pixels

SEED = 11
SCHEDULE = Schedule(epochs=3, batch_size=5, cosine=True, weight_decay=0.01, average_decay=0.5)
RECIPE = AlexNetRecipe(
    name="test",
    network="tiny",
    schedule=SCHEDULE,
    batch_norm=True,
    augmentation=Augmentation(min_area=0.5, color=0.2, mixup=0.2),
    precision="float32",
)

TRANSFER = TransferRecipe(
    name="test",
    network="efficientnet_lite0",
    schedule=Schedule(epochs=2, batch_size=16, learning_rate=2e-3, average_decay=0.5),
    augmentation=Augmentation(flip=True, min_area=0.5),
    min_validation=11,
)


def tiny_network(num_classes: int, *, batch_norm: bool = False, dropout: float = 0.2) -> keras.Model:
    """AlexNet in small, as `networks.alexnet.NETWORKS` builds one: colours, and roughly where."""

    def rectified(x: keras.KerasTensor, layer: keras.layers.Layer) -> keras.KerasTensor:
        x = layer(x)
        x = keras.layers.BatchNormalization(name=f"{layer.name}_norm")(x) if batch_norm else x
        return keras.layers.ReLU(name=f"{layer.name}_relu")(x)

    images = keras.Input((224, 224, 3))
    x = rectified(keras.layers.AveragePooling2D(8)(images), keras.layers.Conv2D(8, 1, name="conv1"))
    x = keras.layers.Flatten()(keras.layers.AveragePooling2D(7)(x))
    x = rectified(keras.layers.Dropout(dropout)(x), keras.layers.Dense(16, name="dense6"))
    logits = keras.layers.Dense(num_classes, dtype="float32", name="logits")(x)
    return keras.Model(images, logits, name="tiny")


def tiny_backbone(name: str = "efficientnet_lite0") -> Backbone:
    """EfficientNet-Lite in small, always with the same weights: which colours there are, and roughly where."""

    def convolve(x: keras.KerasTensor, seed: int, name: str) -> keras.KerasTensor:
        layer = keras.layers.Conv2D(16, 2, kernel_initializer=keras.initializers.HeNormal(seed), name=name)
        x = keras.layers.BatchNormalization(momentum=0.5, name=f"{name}_norm")(layer(x))
        return keras.layers.ReLU(6.0, name=f"{name}_relu")(x)

    images = keras.Input((224, 224, 3))
    x = convolve(keras.layers.AveragePooling2D(32)(images), SEED, "lower")  # (N, 6, 6, 16)
    features = keras.layers.GlobalAveragePooling2D()(convolve(x, SEED + 1, "upper"))
    model = keras.Model(images, features, name=name)
    return Backbone(name, model, lambda pixels: keras.ops.cast(pixels, "float32") * LITE_SCALE + LITE_OFFSET)


def learning_network(seed: int = SEED, num_features: int = 0, scale: float = 1 / 255) -> keras.Model:
    """The tiny network as `fit` takes it."""
    keras.utils.set_random_seed(seed)
    network = tiny_network(len(CLASS_NAMES), batch_norm=True)
    return on_pixels(network, scale, 0.0, hidden_layer="dense6_relu", num_features=num_features)


def drawn_pixels(first_seed: int, per_class: int) -> LabelledPixels:
    """Squares of drawn flowers, `per_class` of each, as one array (N, 224, 224, 3)."""
    squares = [
        resize(np.asarray(draw_photograph(class_index, seed)), ResizeRule())
        for seed in range(first_seed, first_seed + per_class)
        for class_index in range(len(CLASS_NAMES))
    ]
    class_indices = np.tile(np.arange(len(CLASS_NAMES), dtype=np.int64), per_class)
    return LabelledPixels(np.stack(squares), class_indices)


def fit_small(
    network: keras.Model,
    checkpoint: Path | None,
    schedule: Schedule = SCHEDULE,
    *,
    targets: Targets | None = None,
    observer: Observer | None = None,
    is_validated: bool = True,
    keeps_best: bool = True,
    cluster: Cluster = ALONE,
    cache: PixelCache | None = None,
) -> Fitted:
    """Ten photographs to train on, in memory or in a cache, and five to validate."""
    train = drawn_pixels(0, 2)
    if cache:
        stored = cache.write("train", [(224, 224)] * len(train.images), lambda number: iter(train.images[number:]))
        train = replace(train, images=stored)
    targets = targets or LabelTargets(train.class_indices, len(CLASS_NAMES))
    num_views = len(targets.answers) if not isinstance(targets, LabelTargets) else 0
    views = Views(train.images, training_view(RECIPE.augmentation, ResizeRule()), SEED, num_views)
    validation = drawn_pixels(100, 1) if is_validated else None
    with keras.device("cpu:0"):
        return fit(
            network, views, targets, schedule, checkpoint, observer or Observer(), validation, keeps_best=keeps_best,
            cluster=cluster,
        )  # fmt: skip


class _Waiting(Observer):
    """Says aloud when the second epoch is half done, and then waits to be killed."""

    def step(self, epoch: int, step: int, *_: float) -> None:
        if (epoch, step) == (1, 1):
            print("half of the second epoch", flush=True)
            sys.stdin.read()

    def epoch(self, result: Epoch) -> None:
        print("epoch", result.epoch, flush=True)


if __name__ == "__main__":
    fit_small(learning_network(), Path(sys.argv[1]), observer=_Waiting())
