from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from support.drawing import CLASS_NAMES
from support.fitting import RECIPE, drawn_pixels, fit_small

from service.data.batches import epoch_batches
from service.data.views import Batch, Views
from service.errors import TrainingError
from service.imaging.pixels import Pixels, ResizeRule
from service.networks.alexnet import alexnet_v2
from service.networks.backbones import Backbone, load_backbone
from service.training import fit as fit_module
from service.training import teach as teach_module
from service.training.augment import training_view
from service.training.checkpoint import write_arrays
from service.training.recipe import Augmentation, Recipe
from service.training.teach import Lesson, prepare_lesson, principal_features

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
    train = drawn_pixels(0, 2).repeated(repeats)
    views = Views(train.images, training_view(recipe, ResizeRule()), 11, recipe.num_views)
    with keras.device("cpu:0"):
        return prepare_lesson(
            backbone, recipe, len(CLASS_NAMES), train, views, drawn_pixels(100, 2),
            rule=ResizeRule(), seed=11, cache=cache, progress=silent,
        )  # fmt: skip


def test_the_teacher_answers_the_very_views_that_the_student_sees(tmp_path: Path) -> None:
    backbone, shown = mean_color()
    lesson = lesson_of(backbone, tmp_path / "lesson.npz")
    assert lesson.answers.shape == (2, 10, len(CLASS_NAMES))
    np.testing.assert_allclose(lesson.answers.sum(axis=2), 1, atol=1e-5)
    answered = np.concatenate(shown[-2:])  # view 0 of the ten photographs, then view 1
    views = Views(drawn_pixels(0, 2).images, training_view(TAUGHT, ResizeRule()), 11, 2)
    for epoch in range(2):
        (batch,) = epoch_batches(views, batch_size=10, epoch=epoch, seed=11)
        np.testing.assert_array_equal(answered[10 * batch.views + batch.photographs], batch.images)
        assert (batch.shares < 1).any(), "mixed as they are"


@pytest.mark.parametrize("accuracy", [None, 0.0, 0.75])
def test_a_lesson_is_kept_as_it_is(accuracy: float | None, tmp_path: Path) -> None:
    lesson = Lesson(np.full((1, 2, 5), 0.2, np.float32), None, accuracy)
    teach_module._save(tmp_path / "lesson.npz", lesson)
    kept = teach_module._load(tmp_path / "lesson.npz", (1, 2, 5))
    assert kept is not None
    assert (kept.features, kept.accuracy) == (None, accuracy)
    np.testing.assert_array_equal(kept.answers, lesson.answers)


def targets_told(monkeypatch: pytest.MonkeyPatch, checkpoint: Path, **given: Any) -> list[tuple[Batch, dict[str, Any]]]:
    """Every batch of a small training, and what the network was told to answer."""
    told = []
    targets = fit_module._Trainer._targets

    def spied(trainer, batch):  # type: ignore[no-untyped-def]
        told.append((batch, targets(trainer, batch)))
        return told[-1][1]

    monkeypatch.setattr(fit_module._Trainer, "_targets", spied)
    fit_small(checkpoint, **given)
    assert len(told) == 6
    return told


def test_the_student_is_told_the_answer_and_the_features_of_the_view_it_sees(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Answers and features that name their view and photograph in the first two places.
    answers, features = np.zeros((3, 10, len(CLASS_NAMES)), np.float32), np.zeros((3, 10, 4), np.float16)
    for values in (answers, features):
        values[..., 0], values[..., 1] = np.arange(3)[:, None], np.arange(10)
    for number, (batch, targets) in enumerate(
        targets_told(monkeypatch, tmp_path / "checkpoint.npz", lesson=Lesson(answers, features, None))
    ):
        np.testing.assert_array_equal(batch.views, (number // 2 + batch.photographs) % 3)
        for name in ("logits", "features"):
            np.testing.assert_array_equal(targets[name][:, 0], batch.views)
            np.testing.assert_array_equal(targets[name][:, 1], batch.photographs)


def test_without_a_teacher_the_target_is_both_labels_by_their_shares(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class_indices = drawn_pixels(0, 2).class_indices
    for batch, targets in targets_told(monkeypatch, tmp_path / "checkpoint.npz"):
        for row, own, other, share in zip(
            targets["logits"], batch.photographs, batch.others, batch.shares, strict=True
        ):
            expected = np.zeros(len(CLASS_NAMES))
            expected[class_indices[own]] += share
            expected[class_indices[other]] += 1 - share
            np.testing.assert_allclose(row, expected, atol=1e-6)


@pytest.mark.long
def test_features_are_learned_by_the_network_that_is_left_as_it_is_built(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Two groups that cut across the classes, and answers that say nothing.
    num_classes = len(CLASS_NAMES)
    nothing = np.full((1, 10, num_classes), 1 / num_classes, np.float32)
    features = np.eye(2, dtype=np.float16)[np.arange(10) % 2][None]
    recipe = replace(RECIPE, epochs=20, feature_weight=1.0, augmentation=Augmentation(flip=False))
    losses: list[float] = []
    step = keras.Model.train_on_batch

    def watched(model, *given, **named):  # type: ignore[no-untyped-def]
        results = step(model, *given, **named)
        losses.append(float(results["features_loss"]))
        return results

    monkeypatch.setattr(keras.Model, "train_on_batch", watched)
    taught = fit_small(tmp_path / "with.npz", recipe, Lesson(nothing, features, None), is_validated=False).model
    assert np.mean(losses[-4:]) < np.mean(losses[:4]) / 2
    monkeypatch.undo()
    other = fit_small(tmp_path / "without.npz", recipe, Lesson(nothing, None, None), is_validated=False).model
    assert taught.count_params() == alexnet_v2(num_classes, batch_norm=True).count_params()
    kernel, other_kernel = (np.asarray(model.get_layer("conv1").kernel) for model in (taught, other))
    assert np.abs(kernel - other_kernel).max() > 1e-3, "the features' error reaches the first layer"


def test_principal_features_keep_the_most_of_the_variance_and_scale_it_to_one() -> None:
    random = np.random.default_rng(0)
    features = (random.standard_normal((500, 6)) * [5, 0.1, 3, 0.1, 0.1, 0.1] + 7).astype(np.float32)
    reduced = principal_features(features, 2)(features)
    assert reduced.shape == (500, 2)
    assert reduced.var(axis=0).sum() == pytest.approx(1, abs=0.01)
    assert abs(np.corrcoef(reduced[:, 0], features[:, 0])[0, 1]) > 0.99
    assert abs(np.corrcoef(reduced[:, 1], features[:, 2])[0, 1]) > 0.99
    assert principal_features(features, 100)(features).shape == (500, 6)


def test_features_are_in_the_lesson_where_the_recipe_wants_them_and_read_again(tmp_path: Path) -> None:
    wanted = replace(TAUGHT, feature_weight=1.0)
    first, again = (lesson_of(mean_color()[0], tmp_path / "lesson.npz", wanted) for _ in range(2))
    assert first.features is not None
    assert first.features.shape == (2, 10, 3)
    assert first.features[0].astype(np.float64).var(axis=0).sum() == pytest.approx(1, abs=0.01)
    np.testing.assert_array_equal(again.features, first.features)
    assert lesson_of(mean_color()[0], tmp_path / "other.npz").features is None
    assert lesson_of(mean_color()[0], tmp_path / "other.npz").features is None


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


@pytest.mark.parametrize("damage", ["cut off", "of fewer photographs", "of other arrays"])
def test_answers_that_cannot_be_used_are_named_with_a_remedy(damage: str, tmp_path: Path) -> None:
    answers = np.zeros((2, 3, len(CLASS_NAMES)), np.float32)
    if damage == "of other arrays":
        write_arrays(tmp_path / "lesson.npz", {"answers": answers})
    else:
        teach_module._save(tmp_path / "lesson.npz", Lesson(answers, None, None))
    if damage == "cut off":
        (tmp_path / "lesson.npz").write_bytes((tmp_path / "lesson.npz").read_bytes()[:200])
    with pytest.raises(TrainingError, match=r"lesson\.npz is damaged.* remove it"):
        lesson_of(mean_color()[0], tmp_path / "lesson.npz")


@pytest.mark.long
def test_a_pretrained_teacher_learns_drawn_flowers_from_two_of_each(tmp_path: Path) -> None:
    recipe = replace(TAUGHT, num_views=1, teacher_epochs=4, teacher_tuned=0.2)
    lesson = lesson_of(load_backbone("efficientnet_lite2"), tmp_path / "lesson.npz", recipe, repeats=32)
    assert lesson.accuracy is not None
    assert lesson.accuracy >= 0.8
