"""Paces of an AlexNet's training on this machine, measured on first batches of the real networks."""

import time
from dataclasses import dataclass, replace

import keras
import numpy as np

from service.data.batches import LabelledPixels, load_full_images
from service.data.dataset import Dataset
from service.data.views import MakeView, Views
from service.networks.backbones import load_backbone
from service.training.alexnet import build_learning
from service.training.augment import training_view, unmixed_view
from service.training.fit import fit, predict
from service.training.observer import Observer
from service.training.recipe import AlexNetRecipe, Teaching
from service.training.schedule import Schedule
from service.training.targets import LabelTargets, Targets, TeacherTargets
from service.training.teach import NUM_FEATURES, TEACHER_BATCH_SIZE, build_teacher, make_teacher_schedule

_NUM_DECODED = 64
_NUM_BATCHES = 2  # of an epoch. The first epoch also traces. The second one is timed


@dataclass(frozen=True)
class Paces:
    """Seconds on this machine for one photograph or view of it. None means not measured.

    `decode` is for decoding it. `teacher_learns`, `teacher_answers` and `network_learns` are for one view.
    """

    decode: float
    teacher_learns: float | None = None
    teacher_answers: float | None = None
    network_learns: float | None = None


def measure_paces(
    dataset: Dataset, recipe: AlexNetRecipe, device: str, num_kept: int, *, teacher: bool, network: bool
) -> Paces:
    """Measure the decoding, and on request two training steps of teacher and network, after one epoch of two.

    The views are made as in the training. `num_kept` is the number of photographs whose views are kept there, if they
    have room. Weights and random streams of the training do not depend on it. Raises as `train`.
    """
    listed = dataset.split.photographs["train"]
    chosen = listed[:: -(-len(listed) // _NUM_DECODED)]
    begun = time.perf_counter()
    photographs = load_full_images(chosen, dataset.class_names, dataset.rule, dataset.limits)
    paces = {"decode": (time.perf_counter() - begun) / len(chosen)}
    num_classes, teaching = len(dataset.class_names), recipe.teaching
    mixed = training_view(recipe.augmentation, dataset.rule)
    with keras.device(f"{device}:0"):
        if teacher and teaching:
            own_view = unmixed_view(recipe.augmentation, dataset.rule)
            paces |= _measure_teacher(teaching, num_classes, photographs, own_view, mixed)
        if network:
            few = _take(photographs, _NUM_BATCHES * recipe.schedule.batch_size)
            targets: Targets = LabelTargets(few.class_indices, num_classes, recipe.label_smoothing)
            views = Views(few.images, mixed, dataset.seed)
            if teaching:
                shape = (1, len(views))
                answers = np.full((*shape, num_classes), 1 / num_classes, np.float32)
                features = np.zeros((*shape, NUM_FEATURES), np.float16) if teaching.feature_weight else None
                targets = TeacherTargets(answers, features, None, teaching.feature_weight)
                is_keeping = Views([few.images[0]] * num_kept, mixed, dataset.seed, teaching.num_views).is_keeping
                views = Views(few.images, mixed, dataset.seed, 1, None if is_keeping else 0)
            _, learning = build_learning(recipe, num_classes, targets.num_features)
            paces["network_learns"] = _time_steps(learning, views, targets, recipe.schedule)
    return Paces(**paces)


def _measure_teacher(
    teaching: Teaching, num_classes: int, photographs: LabelledPixels, own_view: MakeView, mixed: MakeView
) -> dict[str, float]:
    few = _take(photographs, _NUM_BATCHES * TEACHER_BATCH_SIZE)
    learner, teacher = build_teacher(load_backbone(teaching.teacher), teaching, num_classes)
    labels, views = LabelTargets(few.class_indices, num_classes), Views(few.images, own_view, 0)
    learns = _time_steps(learner, views, labels, make_teacher_schedule(teaching, len(views)))
    numbers, asked = np.arange(TEACHER_BATCH_SIZE), Views(few.images, mixed, 0)
    begun = 0.0
    for view in range(2):  # the first call traces
        begun = time.perf_counter()
        predict(teacher, asked.batch(numbers, np.full_like(numbers, view)).images, TEACHER_BATCH_SIZE)
    return {"teacher_learns": learns, "teacher_answers": (time.perf_counter() - begun) / len(numbers)}


def _take(photographs: LabelledPixels, number: int) -> LabelledPixels:
    repeated = photographs.repeated(-(-number // len(photographs.images)))
    return LabelledPixels(repeated.images[:number], repeated.class_indices[:number])


class _Timer(Observer):
    """Observer that notes the time of each step."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def step(self, *_: float) -> None:
        self.times.append(time.perf_counter())


def _time_steps(network: keras.Model, views: Views, targets: Targets, schedule: Schedule) -> float:
    """Return the seconds that a training needs for one view. They are those of the second of two epochs."""
    timer = _Timer()
    fit(network, views, targets, replace(schedule, epochs=2), None, timer)
    return (timer.times[-1] - timer.times[_NUM_BATCHES - 1]) / len(views)
