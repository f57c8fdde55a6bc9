"""Teacher. A pretrained network learns the classes and then answers every training view."""

import math
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
from numpy.typing import NDArray

from service.data.batches import LabelledPixels, made_ahead
from service.data.views import Batch, Views
from service.errors import TrainingError
from service.imaging.limits import ResizeRule
from service.networks.backbones import Backbone, load_backbone
from service.training.augment import unmixed_view
from service.training.calibrate import softmax
from service.training.checkpoint import read_arrays, unfit_file, write_arrays
from service.training.fit import fit, predict
from service.training.observer import Observer
from service.training.recipe import Augmentation, Teaching
from service.training.schedule import TeacherSchedule
from service.training.targets import Float32, LabelTargets, TeacherTargets

_BATCH_SIZE = 32
_NUM_FEATURES = 256


def teach(
    teaching: Teaching,
    augmentation: Augmentation,
    num_classes: int,
    photographs: LabelledPixels,
    views: Views,
    validation: LabelledPixels | None,
    *,
    rule: ResizeRule,
    cache: Path,
    observer: Observer,
    load: Callable[[str], Backbone] = load_backbone,
) -> TeacherTargets:
    """Train a teacher on the photographs and let it answer every view of each.

    Only the upper `teaching.tuned` of its layers and a new last layer learn. A few hundred photographs spoil more in
    the lower ones than they improve.

    Args:
        teaching: Name, epochs, temperature and features.
        augmentation: Changes of the teacher's own views, which are not mixed.
        num_classes: Width of the last layer.
        photographs: Full images of the training photographs.
        views: Numbered views of the same photographs. Their seed is the teacher's, too.
        validation: Squares to measure the teacher on, or None.
        rule: Size of a view.
        cache: File for the targets. It is read if it is there.
        observer: Observer of the progress.
        load: Function that loads a backbone by its name.

    Raises:
        TrainingError: `cache` cannot be written or read, or is of another training.
        WeightsError: The weights are not installed, or are not the known ones.
    """
    targets = _load(cache, (views.num_views, len(views), num_classes), teaching.feature_weight)
    if targets is None:
        observer.stage(f"loading {teaching.teacher}")
        backbone = load(teaching.teacher)
        keras.utils.set_random_seed(views.seed)
        own_views = Views(photographs.images, unmixed_view(augmentation, rule), views.seed)
        labels = LabelTargets(photographs.class_indices, num_classes)
        teacher = _train(backbone, teaching, own_views, labels, observer)
        targets = _answer(teacher, teaching, views, validation, observer)
        _save(cache, targets)
    observer.taught(teaching.teacher, targets.accuracy)
    return targets


def principal_features(features: Float32, number: int) -> Callable[[Float32], Float32]:
    """Return the function from features, float32 (M, width), to their first `number` principal components.

    They are those of `features`, float32 (N, width). The variances of all components would have the sum 1.
    """
    mean = features.mean(axis=0)
    centred = (features - mean).astype(np.float64)
    variances, directions = np.linalg.eigh(centred.T @ centred / len(features))  # the largest come last
    basis = (directions[:, ::-1][:, :number] / math.sqrt(max(variances.sum(), 1e-12))).astype(np.float32)
    return lambda some: (some - mean) @ basis


class _Learning(Observer):
    """Observer of the teacher's own training. It reports steps as the teacher's progress."""

    def __init__(self, observer: Observer, teacher: str, num_epochs: int) -> None:
        self._observer, self._what, self._num_epochs = observer, f"{teacher} learns", num_epochs

    def step(self, epoch: int, step: int, num_steps: int, *_: float) -> None:
        self._observer.progress(self._what, epoch * num_steps + step, self._num_epochs * num_steps)


def _train(
    backbone: Backbone, teaching: Teaching, views: Views, labels: LabelTargets, observer: Observer
) -> keras.Model:
    """Return the trained teacher, a model from uint8 (N, height, width, 3) to `features` and `logits`."""
    layers = backbone.model.layers
    for layer in layers[: round(len(layers) * (1 - teaching.tuned))]:
        layer.trainable = False  # its batch norms keep their statistics, too
    images = keras.Input(backbone.model.input_shape[1:], dtype="uint8")
    features = backbone.model(backbone.prepare(images))
    dense = keras.layers.Dense(labels.num_classes, kernel_initializer="zeros", dtype="float32")
    logits = dense(keras.layers.Dropout(0.2)(features))
    schedule = TeacherSchedule(
        teaching.epochs, _BATCH_SIZE, learning_rate=5e-4, weight_decay=0.05, average_decay=0.98,
        num_steps=len(views) // min(_BATCH_SIZE, len(views)),
    )  # fmt: skip
    learning = _Learning(observer, teaching.teacher, teaching.epochs)
    if fit(keras.Model(images, {"logits": logits}), views, labels, schedule, None, learning).interrupted:
        raise KeyboardInterrupt  # half a teacher is none
    return keras.Model(images, {"features": features, "logits": logits})


def _answer(
    teacher: keras.Model, teaching: Teaching, views: Views, validation: LabelledPixels | None, observer: Observer
) -> TeacherTargets:
    """Return the teacher's answers to all views, and its accuracy."""
    accuracy = None
    if validation is not None:
        logits = predict(teacher, np.asarray(validation.images), _BATCH_SIZE)["logits"]
        accuracy = float((logits.argmax(axis=1) == validation.class_indices).mean())
    photographs = np.arange(len(views))
    some = [photographs[start : start + _BATCH_SIZE] for start in range(0, len(photographs), _BATCH_SIZE)]
    answers, features = [], []
    reduce: Callable[[Float32], Float32] | None = None
    for number in range(views.num_views):

        def make(numbers: NDArray[np.int64], view: int = number) -> Batch:
            return views.batch(numbers, np.full_like(numbers, view))

        parts, done = [], number * len(views)
        for batch in made_ahead(make, some):
            parts.append(predict(teacher, batch.images, _BATCH_SIZE))
            done += len(batch.images)
            observer.progress(f"{teaching.teacher} answers", done, views.num_views * len(views))
        view_features, logits = (np.concatenate([part[name] for part in parts]) for name in ("features", "logits"))
        answers.append(softmax(logits, teaching.temperature).astype(np.float32))
        if teaching.feature_weight > 0:
            reduce = reduce or principal_features(view_features, _NUM_FEATURES)
            features.append(reduce(view_features).astype(np.float16))
    kept = np.stack(features) if features else None
    return TeacherTargets(np.stack(answers), kept, accuracy, teaching.feature_weight)


def _save(path: Path, targets: TeacherTargets) -> None:
    features = np.empty(0, np.float16) if targets.features is None else targets.features
    accuracy = np.array(np.nan if targets.accuracy is None else targets.accuracy)
    try:
        write_arrays(path, {"answers": targets.answers, "features": features, "accuracy": accuracy})
    except OSError as error:
        raise TrainingError(f"the teacher's answers could not be written to {path}: {error.strerror}") from error


def _load(path: Path, expected: tuple[int, int, int], feature_weight: float) -> TeacherTargets | None:
    """Return what `_save` wrote, or None without a file. `expected` is the shape of the answers."""
    arrays = read_arrays(path)
    if arrays is None:
        return None
    answers, features, accuracy = (arrays.get(name, np.empty(0)) for name in ("answers", "features", "accuracy"))
    is_sound = answers.shape == expected and answers.dtype == np.float32 and features.dtype == np.float16
    is_sound = is_sound and (not features.size or (features.ndim == 3 and features.shape[:2] == expected[:2]))
    if not is_sound or accuracy.shape != () or accuracy.dtype.kind != "f":
        raise unfit_file(path)
    known = None if np.isnan(accuracy) else float(accuracy)
    return TeacherTargets(answers, features if features.size else None, known, feature_weight)
