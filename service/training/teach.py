"""The teacher: a pretrained network learns the classes, and its answers are what AlexNet then learns."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
from numpy.typing import NDArray

from service.data.batches import LabelledPixels, epoch_batches, made_ahead
from service.data.views import Batch, Views
from service.errors import TrainingError
from service.imaging.pixels import Pixels, ResizeRule
from service.networks.backbones import Backbone
from service.training.augment import unmixed_view
from service.training.calibrate import softmax
from service.training.checkpoint import read_arrays, unfit_file, write_arrays
from service.training.recipe import Recipe

Float32 = NDArray[np.float32]
Progress = Callable[[str, int, int], None]
"""What is being done, how much of it is done, and how much there is."""

_BATCH_SIZE = 32
_LEARNING_RATE, _WEIGHT_DECAY, _AVERAGE_DECAY = 5e-4, 0.05, 0.98
_NUM_FEATURES = 256


@dataclass(frozen=True)
class Lesson:
    """What a teacher has to say of the views that `fit` trains on.

    `answers`: probabilities, float32, (num_views, number of training photographs, num_classes). `features`: float16,
    (num_views, number of training photographs, number of features), their variances at most about 1 in sum; None where
    the recipe wants none. `accuracy`: the teacher's own, on the validation photographs if any.
    """

    answers: Float32
    features: NDArray[np.float16] | None
    accuracy: float | None


def prepare_lesson(
    backbone: Backbone,
    recipe: Recipe,
    num_classes: int,
    train: LabelledPixels,
    views: Views,
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
        train: whole photographs; the teacher learns from unmixed views of its own.
        views: of the same photographs, as `fit` takes them.
        validation: squares as serving makes them; None: the teacher is not measured.
        rule: size of a view.
        seed: of the teacher's views, the order and the last layer.
        cache: file for the lesson; one that is there is read instead, so that a resumed training asks no teacher.
        progress: told after each batch that it learns from, and after each that it answers.

    Raises:
        TrainingError: `cache` cannot be written or read.
    """
    if kept := _load(cache, (views.num_views, len(views), num_classes)):
        return kept
    keras.utils.set_random_seed(seed)
    teacher = _tune(backbone, recipe, num_classes, train, rule, seed, progress)
    accuracy = None
    if validation is not None:
        _, logits = _predict(teacher, backbone, np.asarray(validation.images))
        accuracy = float((logits.argmax(axis=1) == validation.class_indices).mean())
    answers, features = [], []
    reduce: Callable[[Float32], Float32] | None = None
    for number in range(views.num_views):
        view_features, logits = _answer_view(teacher, backbone, views, number, progress)
        answers.append(softmax(logits, recipe.teacher_temperature).astype(np.float32))
        if recipe.feature_weight > 0:
            reduce = reduce or principal_features(view_features, _NUM_FEATURES)
            features.append(reduce(view_features).astype(np.float16))
    lesson = Lesson(np.stack(answers), np.stack(features) if features else None, accuracy)
    _save(cache, lesson)
    return lesson


def principal_features(features: Float32, number: int) -> Callable[[Float32], Float32]:
    """How features are reduced to their principal components.

    Args:
        features: float32, shape (N, number of features), to learn the components from.
        number: of components at most.

    Returns:
        A function from float32 (M, number of features) to float32 (M, components). All components that there are would
        have a variance of 1 in sum.
    """
    mean = features.mean(axis=0)
    centred = (features - mean).astype(np.float64)
    variances, directions = np.linalg.eigh(centred.T @ centred / len(features))  # the largest come last
    basis = (directions[:, ::-1][:, :number] / math.sqrt(max(variances.sum(), 1e-12))).astype(np.float32)
    return lambda some: (some - mean) @ basis


def _answer_view(
    teacher: keras.Model, backbone: Backbone, views: Views, number: int, progress: Progress
) -> tuple[Float32, Float32]:
    """Return features and logits for view `number` of every photograph."""
    photographs = np.arange(len(views))
    some = [photographs[start : start + _BATCH_SIZE] for start in range(0, len(photographs), _BATCH_SIZE)]

    def make(numbers: NDArray[np.int64]) -> Batch:
        return views.batch(numbers, np.full_like(numbers, number))

    parts, done = [], number * len(views)
    for batch in made_ahead(make, some):
        parts.append(_predict(teacher, backbone, batch.images))
        done += len(batch.images)
        progress(f"{backbone.name} answers", done, views.num_views * len(views))
    return np.concatenate([part[0] for part in parts]), np.concatenate([part[1] for part in parts])


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
    labels = np.eye(num_classes, dtype=np.float32)[train.class_indices]
    views = Views(train.images, unmixed_view(recipe, rule), seed)
    num_steps = recipe.teacher_epochs * (len(train.images) // min(_BATCH_SIZE, len(train.images)))
    step = 0
    for epoch in range(recipe.teacher_epochs):
        for batch in epoch_batches(views, batch_size=_BATCH_SIZE, epoch=epoch, seed=seed):
            optimizer.learning_rate = _LEARNING_RATE * min(
                10 * (step + 1) / num_steps, 0.5 * (1 + math.cos(math.pi * step / num_steps))
            )
            teacher.train_on_batch(backbone.prepare(batch.images), labels[batch.photographs])
            step += 1
            progress(f"{backbone.name} learns", step, num_steps)
    optimizer.finalize_variable_values(teacher.trainable_variables)
    return keras.Model(backbone.model.input, [backbone.model.output, logits], name="teacher_with_features")


def _predict(teacher: keras.Model, backbone: Backbone, images: Pixels) -> tuple[Float32, Float32]:
    """Features, float32 (N, number of features), and logits, float32 (N, num_classes)."""
    parts = [
        teacher.predict_on_batch(backbone.prepare(images[start : start + _BATCH_SIZE]))
        for start in range(0, len(images), _BATCH_SIZE)
    ]
    features, logits = (np.concatenate([np.asarray(part[i]) for part in parts]) for i in (0, 1))
    return features, logits


def _save(path: Path, lesson: Lesson) -> None:
    features = np.empty(0, np.float16) if lesson.features is None else lesson.features
    accuracy = np.array(np.nan if lesson.accuracy is None else lesson.accuracy)
    try:
        write_arrays(path, {"answers": lesson.answers, "features": features, "accuracy": accuracy})
    except OSError as error:
        raise TrainingError(f"the teacher's answers could not be written to {path}: {error.strerror}") from error


def _load(path: Path, expected: tuple[int, int, int]) -> Lesson | None:
    """Return the lesson that `_save` wrote, or None without one. `expected` is the shape of its answers."""
    arrays = read_arrays(path)
    if arrays is None:
        return None
    answers, features, accuracy = (arrays.get(name, np.empty(0)) for name in ("answers", "features", "accuracy"))
    is_sound = answers.shape == expected and answers.dtype == np.float32 and features.dtype == np.float16
    is_sound = is_sound and (not features.size or (features.ndim == 3 and features.shape[:2] == expected[:2]))
    if not is_sound or accuracy.shape != () or accuracy.dtype.kind != "f":
        raise unfit_file(path)
    known = None if np.isnan(accuracy) else float(accuracy)
    return Lesson(answers, features if features.size else None, known)
