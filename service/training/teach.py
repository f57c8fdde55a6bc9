"""The teacher: a pretrained network learns the classes, and its answers are what AlexNet then learns."""

import math
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
from numpy.typing import NDArray

from service.data.batches import LabelledPixels, epoch_batches, make_views
from service.errors import TrainingError
from service.imaging.pixels import Pixels, ResizeRule
from service.networks.backbones import Backbone
from service.training.augment import training_view
from service.training.calibrate import softmax
from service.training.recipe import Recipe

Float32 = NDArray[np.float32]
Progress = Callable[[str, int, int], None]
"""What is being done, batches done, batches in all."""

_BATCH_SIZE = 32
_LEARNING_RATE, _WEIGHT_DECAY, _AVERAGE_DECAY = 5e-4, 0.05, 0.98


@dataclass(frozen=True)
class Lesson:
    """What a teacher has to say.

    `answers`: probabilities, float32, (num_views, number of training photographs, num_classes), for the views that
    `fit` makes with the same recipe and seed. `accuracy`: the teacher's own, on the validation photographs if any.
    """

    answers: Float32
    accuracy: float | None


def prepare_lesson(
    backbone: Backbone,
    recipe: Recipe,
    num_classes: int,
    train: LabelledPixels,
    validation: LabelledPixels | None,
    *,
    rule: ResizeRule,
    seed: int,
    cache: Path,
    progress: Progress,
) -> Lesson:
    """Make a teacher of `backbone`, on the training photographs, and have it answer every view of each.

    Only the upper `recipe.teacher_tuned` of the teacher's layers learn, and a new last layer: a few hundred
    photographs spoil more in the lower ones than they improve, and these take most of the time.

    Args:
        backbone: a pretrained network; its weights are changed.
        recipe: says the teacher's epochs, the views and the temperature of the answers.
        num_classes: width of the last layer.
        train: whole photographs, as `fit` takes them.
        validation: squares as serving makes them; None: the teacher is not measured.
        rule: size of a view.
        seed: of the views, the order and the last layer.
        cache: file for the lesson; one that is there is read instead, so that a resumed training asks no teacher.
        progress: told after each batch.

    Raises:
        TrainingError: `cache` cannot be written or read.
    """
    if cache.exists():
        return _load(cache)
    keras.utils.set_random_seed(seed)
    teacher = _tune(backbone, recipe, num_classes, train, rule, seed, progress)
    accuracy = None
    if validation is not None:
        logits = _predict(teacher, backbone, np.asarray(validation.images))
        accuracy = float((logits.argmax(axis=1) == validation.class_indices).mean())
    view, photographs = training_view(recipe, rule), np.arange(len(train.images))
    answers = np.empty((recipe.num_views, len(photographs), num_classes), np.float32)
    for number in range(recipe.num_views):
        for start in range(0, len(photographs), _BATCH_SIZE):
            some = photographs[start : start + _BATCH_SIZE]
            images = make_views(train.images, some, np.full_like(some, number), view, seed)
            answers[number, some] = softmax(_predict(teacher, backbone, images), recipe.teacher_temperature)
        progress(f"{backbone.name} answers", number + 1, recipe.num_views)
    lesson = Lesson(answers, accuracy)
    _save(cache, lesson)
    return lesson


def _tune(
    backbone: Backbone,
    recipe: Recipe,
    num_classes: int,
    train: LabelledPixels,
    rule: ResizeRule,
    seed: int,
    progress: Progress,
) -> keras.Model:
    layers = backbone.model.layers
    for layer in layers[: round(len(layers) * (1 - recipe.teacher_tuned))]:
        layer.trainable = False  # its batch norms keep their statistics, too
    features = keras.layers.Dropout(0.2)(backbone.model.output)
    logits = keras.layers.Dense(num_classes, kernel_initializer="zeros", dtype="float32")(features)
    teacher = keras.Model(backbone.model.input, logits, name="teacher")
    optimizer = keras.optimizers.AdamW(
        _LEARNING_RATE, weight_decay=_WEIGHT_DECAY, use_ema=True, ema_momentum=_AVERAGE_DECAY
    )
    optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    teacher.compile(optimizer, keras.losses.CategoricalCrossentropy(from_logits=True))
    labels, view = np.eye(num_classes, dtype=np.float32)[train.class_indices], training_view(recipe, rule)
    num_steps = recipe.teacher_epochs * (len(train.images) // min(_BATCH_SIZE, len(train.images)))
    step = 0
    for epoch in range(recipe.teacher_epochs):
        for batch in epoch_batches(
            train.images, view, batch_size=_BATCH_SIZE, epoch=epoch, seed=seed, num_views=recipe.num_views
        ):
            optimizer.learning_rate = _LEARNING_RATE * min(
                10 * (step + 1) / num_steps, 0.5 * (1 + math.cos(math.pi * step / num_steps))
            )
            teacher.train_on_batch(backbone.prepare(batch.images), labels[batch.photographs])
            step += 1
            progress(f"{backbone.name} learns", step, num_steps)
    optimizer.finalize_variable_values(teacher.trainable_variables)
    return teacher


def _predict(teacher: keras.Model, backbone: Backbone, images: Pixels) -> Float32:
    parts = [
        np.asarray(teacher.predict_on_batch(backbone.prepare(images[start : start + _BATCH_SIZE])))
        for start in range(0, len(images), _BATCH_SIZE)
    ]
    return np.concatenate(parts)


def _save(path: Path, lesson: Lesson) -> None:
    draft = path.with_suffix(".writing")
    try:
        with draft.open("wb") as file:
            np.savez_compressed(file, answers=lesson.answers, accuracy=np.float64(lesson.accuracy or np.nan))
        draft.replace(path)
    except OSError as error:
        raise TrainingError(f"the teacher's answers could not be written to {path}: {error.strerror}") from error


def _load(path: Path) -> Lesson:
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            accuracy = float(file["accuracy"])
            return Lesson(file["answers"], None if np.isnan(accuracy) else accuracy)
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise TrainingError(f"{path} holds no answers of a teacher: remove it to have them made anew") from error
