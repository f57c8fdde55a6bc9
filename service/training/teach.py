"""Teacher. A pretrained network learns the classes and then answers every training view."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
from numpy.typing import NDArray

from service.data.batches import LabelledPixels, made_ahead
from service.data.views import Batch, Views
from service.imaging.limits import ResizeRule
from service.networks.backbones import Backbone, load_backbone
from service.training.augment import unmixed_view
from service.training.calibrate import softmax
from service.training.fit import fit, predict
from service.training.lesson import Components, Lesson, LessonFiles
from service.training.observer import Observer
from service.training.recipe import Augmentation, Teaching
from service.training.schedule import TeacherSchedule
from service.training.targets import Float32, LabelTargets, TeacherTargets

TEACHER_BATCH_SIZE = 32
NUM_FEATURES = 256
"""Largest number of principal components of the teacher's features."""


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

    The teacher has a checkpoint after each epoch, and its answers a file for each view. A training that was killed and
    resumed has the same answers on the CPU. Only the upper `teaching.tuned` of the layers and a new last layer learn. A
    few hundred photographs spoil more in the lower ones than they improve.

    Args:
        teaching: Name, epochs, temperature and features.
        augmentation: Changes of the teacher's own views, which are not mixed.
        num_classes: Width of the last layer.
        photographs: Full images of the training photographs. Some may be `NONE_OF_THESE`.
        views: Numbered views of the same photographs. Their seed is the teacher's, too.
        validation: Squares to measure the teacher on, or None.
        rule: Size of a view.
        cache: File for the targets. It is read if it is there. The files of `LessonFiles` stand beside it on the way.
        observer: Observer of the progress.
        load: Function that loads a backbone by its name.

    Raises:
        TrainingError: `cache` or a file beside it cannot be written or read, or is of another training.
        WeightsError: The weights are not installed, or are not the known ones.
    """
    labels = LabelTargets(photographs.class_indices, num_classes)
    files = LessonFiles(cache, (views.num_views, len(views), num_classes), teaching.feature_weight > 0)
    targets = files.load_whole(teaching.feature_weight)
    if targets is not None:
        files.remove_parts()  # of a training that was killed between the two
    else:
        lesson = files.load_views()
        if len(lesson.answers) < views.num_views:
            observer.stage(f"loading {teaching.teacher}")
            backbone = load(teaching.teacher)
            keras.utils.set_random_seed(views.seed)
            own_views = Views(photographs.images, unmixed_view(augmentation, rule), views.seed)
            of_classes = replace(labels, learns_known=False)
            teacher = _train(backbone, teaching, own_views, of_classes, files.teacher, observer)
            _answer(teacher, teaching, views, validation, lesson, files, observer)
        targets = lesson.targets(teaching.feature_weight)
        files.save_whole(targets)
    observer.taught(teaching.teacher, targets.accuracy)
    return replace(targets, is_known=labels.is_known)


def principal_features(features: Float32, number: int) -> Components:
    """Return the first `number` principal components of `features`, float32 (N, width).

    The variances of all components would have the sum 1.
    """
    mean = features.mean(axis=0)
    centred = (features - mean).astype(np.float64)
    variances, directions = np.linalg.eigh(centred.T @ centred / len(features))  # the largest come last
    basis = (directions[:, ::-1][:, :number] / math.sqrt(max(variances.sum(), 1e-12))).astype(np.float32)
    return Components(mean, basis)


class _Learning(Observer):
    """Observer of the teacher's own training. It reports steps as the teacher's progress."""

    def __init__(self, observer: Observer, teacher: str, num_epochs: int) -> None:
        self._observer, self._teacher, self._num_epochs = observer, teacher, num_epochs

    def step(self, epoch: int, step: int, num_steps: int, *_: float) -> None:
        self._observer.progress(f"{self._teacher} learns", epoch * num_steps + step, self._num_epochs * num_steps)

    def say(self, sentence: str) -> None:
        self._observer.say(f"{self._teacher}: {sentence}")


def build_teacher(backbone: Backbone, teaching: Teaching, num_classes: int) -> tuple[keras.Model, keras.Model]:
    """Build the network that learns, and the one that answers with the same weights.

    Both take uint8 (N, height, width, 3). The former returns `logits`, the latter `features`, too.
    """
    layers = backbone.model.layers
    for layer in layers[: round(len(layers) * (1 - teaching.tuned))]:
        layer.trainable = False  # its batch norms keep their statistics, too
    images = keras.Input(backbone.model.input_shape[1:], dtype="uint8")
    features = backbone.model(backbone.prepare(images))
    dense = keras.layers.Dense(num_classes, kernel_initializer="zeros", dtype="float32")
    logits = dense(keras.layers.Dropout(0.2)(features))
    return keras.Model(images, {"logits": logits}), keras.Model(images, {"features": features, "logits": logits})


def make_teacher_schedule(teaching: Teaching, num_photographs: int) -> TeacherSchedule:
    """Return the schedule of the teacher's own training."""
    return TeacherSchedule(
        teaching.epochs, TEACHER_BATCH_SIZE, learning_rate=5e-4, weight_decay=0.05, average_decay=0.98,
        num_steps=num_photographs // min(TEACHER_BATCH_SIZE, num_photographs),
    )  # fmt: skip


def _train(
    backbone: Backbone, teaching: Teaching, views: Views, labels: LabelTargets, checkpoint: Path, observer: Observer
) -> keras.Model:
    """Return the trained teacher, a model from uint8 (N, height, width, 3) to `features` and `logits`."""
    learner, teacher = build_teacher(backbone, teaching, labels.num_classes)
    learning = _Learning(observer, teaching.teacher, teaching.epochs)
    schedule = make_teacher_schedule(teaching, len(views))
    if fit(learner, views, labels, schedule, checkpoint, learning).interrupted:
        raise KeyboardInterrupt  # half a teacher is none. The same command goes on
    return teacher


def _answer(
    teacher: keras.Model,
    teaching: Teaching,
    views: Views,
    validation: LabelledPixels | None,
    lesson: Lesson,
    files: LessonFiles,
    observer: Observer,
) -> None:
    """Let the teacher answer the views that the lesson lacks. Each view is kept once it is answered."""
    if not lesson.answers and validation is not None:
        logits = predict(teacher, validation.images, TEACHER_BATCH_SIZE)["logits"]
        lesson.accuracy = float((logits.argmax(axis=1) == validation.class_indices).mean())
    photographs = np.arange(len(views))
    some = [photographs[start : start + TEACHER_BATCH_SIZE] for start in range(0, len(photographs), TEACHER_BATCH_SIZE)]
    for number in range(len(lesson.answers), views.num_views):

        def make(numbers: NDArray[np.int64], view: int = number) -> Batch:
            return views.batch(numbers, np.full_like(numbers, view))

        parts, done = [], number * len(views)
        for batch in made_ahead(make, some):
            parts.append(predict(teacher, batch.images, TEACHER_BATCH_SIZE))
            done += len(batch.images)
            observer.progress(f"{teaching.teacher} answers", done, views.num_views * len(views))
        features, logits = (np.concatenate([part[name] for part in parts]) for name in ("features", "logits"))
        lesson.answers.append(softmax(logits, teaching.temperature).astype(np.float32))
        if teaching.feature_weight > 0:
            lesson.components = lesson.components or principal_features(features, NUM_FEATURES)
            lesson.features.append(lesson.components(features).astype(np.float16))
        files.save_view(lesson)
