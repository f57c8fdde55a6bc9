from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest
from support.drawing import CLASS_NAMES
from support.fitting import RECIPE, SEED, drawn_pixels, fit_small, learning_network

from service.data.batches import epoch_batches
from service.data.views import Views
from service.errors import TrainingError
from service.imaging.limits import ResizeRule
from service.imaging.pixels import Pixels
from service.networks.backbones import Backbone, load_backbone
from service.training.augment import training_view
from service.training.checkpoint import read_arrays, write_arrays
from service.training.lesson import LessonFiles
from service.training.observer import Observer
from service.training.recipe import Teaching
from service.training.targets import TeacherTargets
from service.training.teach import principal_features, teach

TEACHING = Teaching("mean_color", num_views=2, epochs=1)


class Colours:
    """A backbone of two layers whose features are an image's mean colour, and the images that it is shown."""

    def __init__(self) -> None:
        self.shown: list[Pixels] = []
        self.model: keras.Model | None = None

    def load(self, name: str) -> Backbone:
        images = keras.Input((224, 224, 3))
        lower = keras.layers.Dense(3, kernel_initializer="identity", name="lower")(images)
        upper = keras.layers.Dense(3, kernel_initializer="identity", name="upper")(lower)
        self.model = keras.Model(images, keras.layers.GlobalAveragePooling2D()(upper))
        return Backbone(name, self.model, lambda pixels: keras.ops.cast(pixels, "float32") / 255)


@pytest.fixture
def colours(monkeypatch: pytest.MonkeyPatch) -> Colours:
    colours = Colours()
    for name in ("train_on_batch", "predict_on_batch"):
        real = getattr(keras.Model, name)

        def watched(model, images, *given, real=real, **named):  # type: ignore[no-untyped-def]
            colours.shown.append(np.asarray(images))
            return real(model, images, *given, **named)

        monkeypatch.setattr(keras.Model, name, watched)
    return colours


def own_views(num_views: int = 2, repeats: int = 1) -> Views:
    photographs = drawn_pixels(0, 2).repeated(repeats)
    return Views(photographs.images, training_view(RECIPE.augmentation, ResizeRule()), SEED, num_views)


def taught(
    colours: Colours, cache: Path, teaching: Teaching = TEACHING, observer: Observer | None = None
) -> TeacherTargets:
    cache.parent.mkdir(exist_ok=True)
    with keras.device("cpu:0"):
        return teach(
            teaching, RECIPE.augmentation, len(CLASS_NAMES), drawn_pixels(0, 2), own_views(teaching.num_views),
            drawn_pixels(100, 2), rule=ResizeRule(), cache=cache, observer=observer or Observer(), load=colours.load,
        )  # fmt: skip


def test_the_teacher_answers_the_views_that_the_student_sees(colours: Colours, tmp_path: Path) -> None:
    targets = taught(colours, tmp_path / "lesson.npz")
    assert targets.answers.shape == (2, 10, len(CLASS_NAMES))
    np.testing.assert_allclose(targets.answers.sum(axis=2), 1, atol=1e-5)
    answered = np.concatenate(colours.shown[-2:])  # view 0 of the ten photographs, then view 1
    for epoch in range(2):
        (batch,) = epoch_batches(own_views(), batch_size=10, epoch=epoch)
        np.testing.assert_array_equal(answered[10 * batch.views + batch.photographs], batch.images)
        assert (batch.shares < 1).any(), "mixed as they are"


def test_the_teacher_learns_from_unmixed_views(colours: Colours, tmp_path: Path) -> None:
    taught(colours, tmp_path / "lesson.npz", replace(TEACHING, epochs=2))
    plain = replace(RECIPE.augmentation, mixup=0.0, cutmix=0.0)
    views = Views(drawn_pixels(0, 2).images, training_view(plain, ResizeRule()), SEED)
    for epoch in range(2):
        (expected,) = epoch_batches(views, batch_size=10, epoch=epoch)
        np.testing.assert_array_equal(colours.shown[epoch], expected.images)
        assert (expected.shares == 1).all()


def test_only_the_upper_part_of_the_teacher_learns(colours: Colours, tmp_path: Path) -> None:
    taught(colours, tmp_path / "lesson.npz", replace(TEACHING, epochs=4))
    assert colours.model is not None
    lower, upper = (colours.model.get_layer(name).get_weights()[0] for name in ("lower", "upper"))
    np.testing.assert_array_equal(lower, np.eye(3, dtype=np.float32))
    assert np.abs(upper - np.eye(3)).max() > 1e-6


def test_the_teacher_is_the_mean_of_its_last_weights(
    colours: Colours, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernels: list[np.ndarray] = []
    step = keras.Model.train_on_batch

    def watched(model, *given, **named):  # type: ignore[no-untyped-def]
        results = step(model, *given, **named)
        assert colours.model is not None
        kernels.append(colours.model.get_layer("upper").get_weights()[0])
        return results

    monkeypatch.setattr(keras.Model, "train_on_batch", watched)
    taught(colours, tmp_path / "lesson.npz", replace(TEACHING, epochs=6))
    assert colours.model is not None
    averaged = kernels[0]
    for kernel in kernels[1:]:
        averaged = 0.98 * averaged + 0.02 * kernel
    np.testing.assert_allclose(colours.model.get_layer("upper").get_weights()[0], averaged, atol=1e-6)
    assert np.abs(averaged - kernels[-1]).max() > 1e-5


@pytest.mark.parametrize("feature_weight", [0.0, 1.0])
def test_a_resumed_training_asks_no_teacher(feature_weight: float, colours: Colours, tmp_path: Path) -> None:
    wanted = replace(TEACHING, feature_weight=feature_weight)
    first = taught(colours, tmp_path / "lesson.npz", wanted)
    colours.shown.clear()
    again = taught(colours, tmp_path / "lesson.npz", wanted)
    assert not colours.shown
    np.testing.assert_array_equal(again.answers, first.answers)
    assert (again.accuracy, again.feature_weight) == (first.accuracy, feature_weight)
    if first.features is None or again.features is None:
        assert first.features is again.features
    else:
        np.testing.assert_array_equal(again.features, first.features)


def test_wanted_features_have_a_variance_of_one(colours: Colours, tmp_path: Path) -> None:
    assert taught(colours, tmp_path / "without.npz").features is None
    features = taught(colours, tmp_path / "with.npz", replace(TEACHING, feature_weight=1.0)).features
    assert features is not None
    assert features.shape == (2, 10, 3)
    assert features[0].astype(np.float64).var(axis=0).sum() == pytest.approx(1, abs=0.01)


def test_a_higher_temperature_softens_the_answers(colours: Colours, tmp_path: Path) -> None:
    sharp, soft = (
        taught(colours, tmp_path / f"{temperature}.npz", replace(TEACHING, temperature=temperature))
        for temperature in (1.0, 4.0)
    )
    np.testing.assert_array_equal(sharp.answers.argmax(axis=2), soft.answers.argmax(axis=2))
    assert (soft.answers.max(axis=2) < sharp.answers.max(axis=2)).all()


@pytest.mark.parametrize("damage", ["cut off", "of fewer photographs", "of other arrays"])
def test_unusable_answers_are_named_with_a_remedy(damage: str, colours: Colours, tmp_path: Path) -> None:
    path = tmp_path / "lesson.npz"
    taught(colours, path)
    arrays = dict(read_arrays(path) or {})
    if damage == "cut off":
        path.write_bytes(path.read_bytes()[:200])
    elif damage == "of fewer photographs":
        write_arrays(path, arrays | {"answers": arrays["answers"][:, :3]})
    else:
        write_arrays(path, {"answers": arrays["answers"]})
    with pytest.raises(TrainingError, match=r"lesson\.npz is damaged.* Remove it"):
        taught(colours, path)


class Killed(BaseException):
    """The process would now be gone."""


class Killer(Observer):
    """Ends a training at each of some points of the teacher's progress."""

    def __init__(self, *points: tuple[str, int]) -> None:
        self._points = list(points)
        self.said: list[str] = []

    def progress(self, what: str, done: int, total: int) -> None:
        if (what, done) in self._points:
            self._points.remove((what, done))
            raise Killed

    def say(self, sentence: str) -> None:
        self.said.append(sentence)


def test_a_twice_killed_teacher_ends_with_the_same_answers(colours: Colours, tmp_path: Path) -> None:
    wanted = replace(TEACHING, epochs=2, feature_weight=1.0)
    whole = taught(colours, tmp_path / "whole" / "lesson.npz", wanted)
    cache, killer = tmp_path / "killed" / "lesson.npz", Killer(("mean_color learns", 2), ("mean_color answers", 20))
    left = []
    for _ in range(2):
        with pytest.raises(Killed):
            taught(colours, cache, wanted, killer)
        left.append({path.name for path in cache.parent.iterdir()})
    assert left == [{"teacher.npz"}, {"teacher.npz", "lesson-00.npz"}]
    colours.shown.clear()
    resumed = taught(colours, cache, wanted, killer)
    assert len(colours.shown) == 1, "only the second view is answered"
    said = [f"mean_color: {number} of 2 epochs are in {cache.parent} from before" for number in (1, 2)]
    assert [sentence[: len(said[0])] for sentence in killer.said] == said
    np.testing.assert_array_equal(resumed.answers, whole.answers)
    np.testing.assert_array_equal(resumed.features, whole.features)
    assert resumed.accuracy == whole.accuracy
    assert [path.name for path in cache.parent.iterdir()] == ["lesson.npz"], "what is no longer needed is gone"


def test_whole_answers_need_no_teacher_again(colours: Colours, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def end(*_: object) -> None:
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(LessonFiles, "save_whole", end)
        with pytest.raises(Killed):
            taught(colours, tmp_path / "lesson.npz")
    colours.shown.clear()
    assert taught(colours, tmp_path / "lesson.npz").answers.shape == (2, 10, len(CLASS_NAMES))
    assert not colours.shown


@pytest.mark.long
def test_the_features_error_reaches_the_first_layer() -> None:
    # Two groups that cut across the classes, and answers that say nothing.
    nothing = np.full((1, 10, len(CLASS_NAMES)), 1 / len(CLASS_NAMES), np.float32)
    features = np.eye(2, dtype=np.float16)[np.arange(10) % 2][None]
    with_features, without = learning_network(num_features=2), learning_network(num_features=2)
    fit_small(with_features, None, targets=TeacherTargets(nothing, features, None), is_validated=False)
    unweighted = TeacherTargets(nothing, features, None, feature_weight=0.0)
    fit_small(without, None, targets=unweighted, is_validated=False)
    kernel, other = (network.get_weights()[0] for network in (with_features, without))
    assert not np.array_equal(kernel, other)


def test_principal_features_keep_the_most_of_the_variance() -> None:
    random = np.random.default_rng(0)
    features = (random.standard_normal((500, 6)) * [5, 0.1, 3, 0.1, 0.1, 0.1] + 7).astype(np.float32)
    reduced = principal_features(features, 2)(features)
    assert reduced.shape == (500, 2)
    assert reduced.var(axis=0).sum() == pytest.approx(1, abs=0.01)
    assert abs(np.corrcoef(reduced[:, 0], features[:, 0])[0, 1]) > 0.99
    assert abs(np.corrcoef(reduced[:, 1], features[:, 2])[0, 1]) > 0.99
    assert principal_features(features, 100)(features).shape == (500, 6)


@pytest.mark.long
def test_a_pretrained_teacher_learns_from_two_of_each(tmp_path: Path) -> None:
    teaching = Teaching("efficientnet_lite0", num_views=1, epochs=4, tuned=0.2)
    targets = teach(
        teaching, RECIPE.augmentation, len(CLASS_NAMES), drawn_pixels(0, 2).repeated(16), own_views(1, repeats=16),
        drawn_pixels(100, 2), rule=ResizeRule(), cache=tmp_path / "lesson.npz", observer=Observer(), load=load_backbone,
    )  # fmt: skip
    assert targets.accuracy is not None
    assert targets.accuracy >= 0.8
