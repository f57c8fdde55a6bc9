"""A small training that tests run here, or in another process that they kill: `python fitting.py CHECKPOINT`."""

import sys
from pathlib import Path

import keras
import numpy as np
from support.drawing import CLASS_NAMES, draw_photograph

from service.data.batches import LabelledPixels
from service.data.views import Views
from service.imaging.pixels import ResizeRule
from service.imaging.resize import resize
from service.training.augment import training_view
from service.training.checkpoint import Epoch
from service.training.fit import Fitted, fit
from service.training.recipe import Augmentation, Recipe
from service.training.teach import Lesson

RECIPE = Recipe(
    name="test",
    network="alexnet_v2",
    epochs=3,
    batch_size=5,
    batch_norm=True,
    cosine=True,
    weight_decay=0.01,
    average_decay=0.5,
    augmentation=Augmentation(min_area=0.5, color=0.2, mixup=0.2),
)


class Printer:
    """Says aloud when an epoch is done, so that whoever kills us knows when."""

    def step(self, epoch: int, step: int, num_steps: int, loss: float, accuracy: float, images_per_s: float) -> None:
        print("step", epoch, step, flush=True)

    def epoch(self, result: Epoch) -> None:
        print("epoch", result.epoch, flush=True)

    def say(self, sentence: str) -> None:
        print(sentence, flush=True)


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
    checkpoint: Path, recipe: Recipe = RECIPE, lesson: Lesson | None = None, *, is_validated: bool = True
) -> Fitted:
    """Ten photographs to train on, five to validate."""
    train = drawn_pixels(0, 2)
    num_views = len(lesson.answers) if lesson else 0
    with keras.device("cpu:0"):
        return fit(
            recipe,
            len(CLASS_NAMES),
            Views(train.images, training_view(recipe, ResizeRule()), 11, num_views),
            train.class_indices,
            drawn_pixels(100, 1) if is_validated else None,
            seed=11,
            checkpoint=checkpoint,
            watcher=Printer(),
            lesson=lesson,
        )


if __name__ == "__main__":
    fit_small(Path(sys.argv[1]))
