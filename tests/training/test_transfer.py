"""Training of new classes, on drawn flowers and a tiny backbone: what is published, and what is left to do."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.drawing import CLASS_NAMES
from support.fitting import TRANSFER, tiny_backbone

from service.data.dataset import Dataset
from service.networks.backbones import LITE_OFFSET, LITE_SCALE
from service.training import transfer
from service.training import tune as tune_module
from service.training.calibrate import softmax
from service.training.cross_validation import assign_folds
from service.training.features import extract_features
from service.training.fit import measure_logits, predict
from service.training.last_layer import LastLayer, learn_last_layer
from service.training.observer import Observer
from service.training.recipe import TransferRecipe
from service.training.run import Run
from service.training.trained_network import TrainedNetwork, on_pixels
from service.training.transfer import Frozen, choose_network, features_model, learn_frozen, train_transfer
from service.training.tune import Tuned, tune

NUM_FOLDS = 2  # of which each learns a last layer of its own


@dataclass
class Lesson:
    """Last layers in the order of their learning, each with what it has learned from, and the features of the parts."""

    frozen: Frozen
    learned: list[tuple[np.ndarray, np.ndarray, LastLayer]]
    features: list[np.ndarray]
    folder: Path


@pytest.fixture(scope="module")
def lesson(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Lesson:
    """Last layers on frozen features, learned once."""
    learned: list[tuple[np.ndarray, np.ndarray, LastLayer]] = []
    features: list[np.ndarray] = []

    def learn(views: np.ndarray, class_indices: np.ndarray, num_classes: int) -> LastLayer:
        last = learn_last_layer(views, class_indices, num_classes)
        learned.append((views, class_indices, last))
        return last

    def extract(*given: Any) -> np.ndarray:
        features.append(extract_features(*given))
        return features[-1]

    folder = tmp_path_factory.mktemp("lesson")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(transfer, "load_backbone", tiny_backbone)
        patch.setattr(transfer, "features_model", features_model.__wrapped__)  # another test's network may be cached
        patch.setattr(transfer, "learn_last_layer", learn)
        patch.setattr(transfer, "extract_features", extract)
        parts = dataset.squares("train"), dataset.squares("validation")
        recipe = replace(TRANSFER, num_folds=NUM_FOLDS)
        frozen = learn_frozen(dataset, recipe, run_in(folder), Observer(), *parts)
    return Lesson(frozen, learned, features, folder)


def run_in(folder: Path) -> Run:
    run = Run(folder / "run", "drawn", folder / "store", "cpu")
    run.make()
    return run


class Presser(Observer):
    """Presses Ctrl-C at the first step of an epoch, counted over all networks from 1, and remembers what is said."""

    def __init__(self, epoch: int = 0) -> None:
        self.said: list[str] = []
        self._left = epoch

    def step(self, epoch: int, step: int, *_: float) -> None:
        if step == 1:
            self._left -= 1
            if self._left == 0:
                raise KeyboardInterrupt

    def say(self, sentence: str) -> None:
        self.said.append(sentence)


@pytest.fixture
def frozen(lesson: Lesson, monkeypatch: pytest.MonkeyPatch, eager: None) -> Frozen:
    """The last layers of the lesson. Each training takes them as its own, and its upper layers are tiny."""
    hopeless = replace(lesson.frozen, epoch=replace(lesson.frozen.epoch, validation_loss=99.0))  # so tuning pays
    monkeypatch.setattr(transfer, "learn_frozen", lambda *_: hopeless)
    monkeypatch.setattr(transfer, "load_backbone", tiny_backbone)
    monkeypatch.setattr(tune_module, "load_backbone", tiny_backbone)
    return hopeless


def trained(
    dataset: Dataset, folder: Path, observer: Observer | None = None, recipe: TransferRecipe = TRANSFER
) -> TrainedNetwork:
    return train_transfer(dataset, recipe, run_in(folder), observer or Observer())


def outputs_of(network: TrainedNetwork, images: Any) -> dict[str, np.ndarray]:
    return predict(on_pixels(network.network, LITE_SCALE, LITE_OFFSET), np.asarray(images))


def assert_equal_networks(one: TrainedNetwork, other: TrainedNetwork) -> None:
    for value, wanted in zip(one.network.get_weights(), other.network.get_weights(), strict=True):
        np.testing.assert_array_equal(value, wanted)


def test_last_layers_learn_one_part_and_then_both(lesson: Lesson, dataset: Dataset) -> None:
    train, validation = dataset.squares("train"), dataset.squares("validation")
    class_indices = np.concatenate([train.class_indices, validation.class_indices])
    (one, of_one, _), (both, of_both, last), *_ = lesson.learned
    assert lesson.frozen.of_both is last
    np.testing.assert_array_equal(one, lesson.features[0])
    np.testing.assert_array_equal(of_one, train.class_indices)
    np.testing.assert_array_equal(both, np.concatenate(lesson.features, axis=1))
    np.testing.assert_array_equal(of_both, class_indices)
    files = sorted((lesson.folder / "run" / "features").rglob("*.npz"))
    assert [path.parent.name for path in files] == ["train", "validation"]
    logits = lesson.frozen.of_training.logits(lesson.features[1][0])
    right = (logits.argmax(axis=1) == validation.class_indices).mean()
    assert lesson.frozen.epoch.validation_accuracy == pytest.approx(right)


def test_a_last_layer_without_the_photograph_calibrates(lesson: Lesson, dataset: Dataset) -> None:
    folds, both = np.array(assign_folds(dataset, NUM_FOLDS)), np.concatenate(lesson.features, axis=1)
    expected = np.zeros((len(folds), len(CLASS_NAMES)), np.float32)
    for fold, (views, _, last) in enumerate(lesson.learned[2:]):
        np.testing.assert_array_equal(views, both[:, folds != fold])
        expected[folds == fold] = last.logits(both[0, folds == fold])
    calibration = lesson.frozen.calibration
    assert calibration.part == "cross-validation"
    np.testing.assert_allclose(calibration.probabilities, softmax(expected, calibration.temperature), atol=1e-5)
    assert calibration.max_distance is not None


def test_few_validation_photographs_tune_nothing(dataset: Dataset, frozen: Frozen, tmp_path: Path) -> None:
    observer = Presser()
    result = trained(dataset, tmp_path, observer, replace(TRANSFER, min_validation=12))
    (said,) = observer.said
    assert said.startswith("The upper layers are not tuned. The validation part has 11 photographs. At least 12")
    backbone, images = tiny_backbone(), np.asarray(dataset.squares("test").images)
    features, outputs = np.asarray(backbone.model(backbone.prepare(images))), outputs_of(result, images)
    np.testing.assert_allclose(outputs["logits"], frozen.of_both.logits(features), atol=1e-4)
    np.testing.assert_allclose(outputs["distance"], frozen.of_both.distances(features), atol=1e-5)
    assert result.held_out is dataset.squares("test")
    assert result.calibration is frozen.calibration
    assert (result.history, result.backbone) == ((frozen.epoch,), "efficientnet_lite0")
    assert (result.interrupted, result.is_finished, result.recipe_values["is_tuned"]) == (False, True, False)


def test_tuning_that_does_not_pay_is_dropped(
    dataset: Dataset, lesson: Lesson, frozen: Frozen, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    perfect = replace(frozen, epoch=replace(frozen.epoch, validation_loss=0.0))
    monkeypatch.setattr(transfer, "learn_frozen", lambda *_: perfect)
    observer = Presser()
    result = trained(dataset, tmp_path, observer)
    assert observer.said[-1].endswith("The first network is published.")
    np.testing.assert_array_equal(result.network.get_layer("logits").get_weights()[0], frozen.of_both.kernel)
    assert result.calibration is frozen.calibration
    assert (result.is_finished, result.recipe_values["is_tuned"]) == (True, False)
    assert not (tmp_path / "run" / "refit").exists()


def test_the_larger_network_is_taken_where_layers_are_tuned(dataset: Dataset) -> None:
    recipe = replace(TRANSFER, tuned_network="efficientnet_lite1")
    assert choose_network(dataset, recipe).network == "efficientnet_lite1"
    for frozen in (replace(recipe, min_validation=12), replace(recipe, tuned=0.0)):
        assert choose_network(dataset, frozen) is frozen


def test_the_test_part_is_asked_for_last(
    dataset: Dataset, frozen: Frozen, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    for name in ("full_images", "squares"):
        real = getattr(Dataset, name)

        def watched(dataset: Dataset, *parts: Any, real: Any = real) -> Any:
            asked.extend(parts)
            return real(dataset, *parts)

        monkeypatch.setattr(Dataset, name, watched)
    trained(dataset, tmp_path, recipe=replace(TRANSFER, min_validation=12))
    assert asked == ["train", "validation", "test"]


@pytest.mark.long
def test_ctrl_c_keeps_the_best_and_training_goes_on(
    dataset: Dataset, frozen: Frozen, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tunings: list[tuple[Any, ...]] = []

    def watched(dataset: Dataset, recipe: TransferRecipe, run: Run, observer: Observer, *given: Any) -> Tuned:
        tunings.append((run.folder.name, *given))
        return tune(dataset, recipe, run, observer, *given)

    monkeypatch.setattr(transfer, "tune", watched)
    undisturbed = trained(dataset, tmp_path / "undisturbed")
    first, second = tunings
    assert first == ("tuned", frozen.of_training, ("train",), dataset.squares("validation"))
    assert second[:-1] == ("refit", frozen.of_both, ("train", "validation"), None)
    assert second[-1].history == undisturbed.history, "the second network is a mean with the first"
    assert (undisturbed.interrupted, undisturbed.is_finished) == (False, True)
    assert undisturbed.held_out is dataset.squares("test")

    in_first_epoch = trained(dataset, tmp_path, Presser(1))
    assert in_first_epoch.calibration is frozen.calibration
    np.testing.assert_array_equal(in_first_epoch.network.get_layer("logits").get_weights()[0], frozen.of_both.kernel)

    in_second_epoch = trained(dataset, tmp_path, Presser(2))
    assert [epoch.epoch for epoch in in_second_epoch.history] == [0]

    in_second_network = trained(dataset, tmp_path, Presser(2))  # the first epoch is that of a checkpoint
    at_its_end = trained(dataset, tmp_path, Presser(2))
    assert_equal_networks(at_its_end, in_second_network)
    assert [epoch.epoch for epoch in in_second_network.history] == [0, 1]
    assert in_second_network.history[0] == in_second_epoch.history[0]
    assert in_second_network.calibration.temperature == undisturbed.calibration.temperature

    for early in (in_first_epoch, in_second_epoch, in_second_network, at_its_end):
        assert (early.interrupted, early.is_finished) == (True, False)
        assert early.recipe_values["is_tuned"] is (early is not in_first_epoch)
    for of_training in (in_second_epoch, in_second_network):
        assert of_training.held_out is dataset.squares("validation")
        assert of_training.calibration.part == "validation"
        loss = of_training.history[-1].validation_loss
        outputs = outputs_of(of_training, dataset.squares("validation").images)
        measured = measure_logits(outputs["logits"], dataset.squares("validation").class_indices)
        assert measured[0] == pytest.approx(loss, abs=1e-5)

    observer = Presser()
    resumed = trained(dataset, tmp_path, observer)
    assert "2 of 2 epochs" in observer.said[0]
    assert (resumed.interrupted, resumed.is_finished, resumed.recipe_values["is_tuned"]) == (False, True, True)
    assert_equal_networks(resumed, undisturbed)
    assert resumed.calibration.max_distance == undisturbed.calibration.max_distance
