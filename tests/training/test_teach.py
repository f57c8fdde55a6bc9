from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest
from drawing import CLASS_NAMES
from training.fitting import RECIPE, drawn_pixels, fit_small

from service.data.batches import epoch_batches
from service.errors import TrainingError
from service.imaging.pixels import Pixels, ResizeRule
from service.networks.backbones import Backbone, load_backbone
from service.training import fit as fit_module
from service.training.augment import training_view
from service.training.recipe import Recipe
from service.training.teach import Lesson, prepare_lesson

TAUGHT = replace(RECIPE, teacher="efficientnet_lite0", num_views=2, teacher_epochs=1)


def silent(what: str, done: int, total: int) -> None:
    pass


def mean_color() -> tuple[Backbone, list[Pixels]]:
    """A backbone whose features are an image's mean colour, and every batch of images that it has been shown."""
    shown: list[Pixels] = []

    def prepare(images: Pixels) -> np.ndarray:
        shown.append(images)
        return images.astype(np.float32) / 255

    images = keras.Input((224, 224, 3))
    return Backbone("mean_color", keras.Model(images, keras.layers.GlobalAveragePooling2D()(images)), prepare), shown


def lesson_of(backbone: Backbone, cache: Path, recipe: Recipe = TAUGHT, repeats: int = 1) -> Lesson:
    with keras.device("cpu:0"):
        return prepare_lesson(
            backbone, recipe, len(CLASS_NAMES), drawn_pixels(0, 2).repeated(repeats), drawn_pixels(100, 2),
            rule=ResizeRule(), seed=11, cache=cache, progress=silent,
        )  # fmt: skip


def test_the_teacher_answers_the_very_views_that_the_student_sees(tmp_path: Path) -> None:
    backbone, shown = mean_color()
    lesson = lesson_of(backbone, tmp_path / "lesson.npz")
    assert lesson.answers.shape == (2, 10, len(CLASS_NAMES))
    np.testing.assert_allclose(lesson.answers.sum(axis=2), 1, atol=1e-5)
    answered = np.concatenate(shown[-2:])  # view 0 of the ten photographs, then view 1
    for epoch in range(2):
        (batch,) = epoch_batches(
            drawn_pixels(0, 2).images, training_view(TAUGHT, ResizeRule()),
            batch_size=10, epoch=epoch, seed=11, num_views=2,
        )  # fmt: skip
        np.testing.assert_array_equal(answered[10 * batch.views + batch.photographs], batch.images)


def test_the_student_is_told_the_answer_to_the_view_it_sees(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Answers that name their view and photograph in the first two places.
    answers = np.zeros((3, 10, len(CLASS_NAMES)), np.float32)
    answers[..., 0], answers[..., 1] = np.arange(3)[:, None], np.arange(10)
    told = []
    batches = fit_module._Trainer._batches

    def spied(trainer, epoch):  # type: ignore[no-untyped-def]
        for inputs, targets in batches(trainer, epoch):
            told.append((epoch, targets))
            yield inputs, targets

    monkeypatch.setattr(fit_module._Trainer, "_batches", spied)
    still = replace(RECIPE, augmentation=replace(RECIPE.augmentation, mixup=0.0))
    fit_small(tmp_path / "checkpoint.npz", still, answers)
    assert len(told) == 6
    for epoch, targets in told:
        np.testing.assert_array_equal(targets[:, 0], (epoch + targets[:, 1]) % 3)


def test_a_higher_temperature_softens_the_answers_and_changes_no_winner(tmp_path: Path) -> None:
    sharp, soft = (
        lesson_of(mean_color()[0], tmp_path / f"{temperature}.npz", replace(TAUGHT, teacher_temperature=temperature))
        for temperature in (1.0, 4.0)
    )
    np.testing.assert_array_equal(sharp.answers.argmax(axis=2), soft.answers.argmax(axis=2))
    assert (soft.answers.max(axis=2) < sharp.answers.max(axis=2)).all()


def test_a_resumed_training_asks_no_teacher(tmp_path: Path) -> None:
    first = lesson_of(mean_color()[0], tmp_path / "lesson.npz")
    backbone, shown = mean_color()
    again = lesson_of(backbone, tmp_path / "lesson.npz")
    assert not shown
    np.testing.assert_array_equal(again.answers, first.answers)
    assert again.accuracy == first.accuracy


def test_answers_that_cannot_be_read_are_named_with_a_remedy(tmp_path: Path) -> None:
    (tmp_path / "lesson.npz").write_bytes(b"PK\x03\x04 cut off")
    with pytest.raises(TrainingError, match="remove it"):
        lesson_of(mean_color()[0], tmp_path / "lesson.npz")


@pytest.mark.slow
def test_a_pretrained_teacher_learns_drawn_flowers_from_two_of_each(tmp_path: Path) -> None:
    recipe = replace(TAUGHT, teacher_epochs=4)
    lesson = lesson_of(load_backbone("efficientnet_lite2"), tmp_path / "lesson.npz", recipe, repeats=32)
    assert lesson.accuracy is not None
    assert lesson.accuracy >= 0.8
