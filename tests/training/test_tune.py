from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest
from support.drawing import CLASS_NAMES
from support.fitting import TRANSFER, tiny_backbone

from service.data.batches import LabelledPixels
from service.data.dataset import Dataset
from service.data.parts import Part
from service.networks.backbones import LITE_OFFSET, LITE_SCALE
from service.training import tune as tune_module
from service.training.fit import predict, validate
from service.training.last_layer import LastLayer, find_centres
from service.training.observer import Observer
from service.training.recipe import TransferRecipe
from service.training.run import Run
from service.training.schedule import Schedule
from service.training.trained_network import on_pixels
from service.training.tune import Tuned, tune

pytestmark = pytest.mark.usefixtures("eager")
FASTER = replace(TRANSFER, schedule=replace(TRANSFER.schedule, learning_rate=5e-3))
STILL = replace(TRANSFER, schedule=Schedule(epochs=1, batch_size=64, learning_rate=1e-12))


@pytest.fixture(scope="module")
def begin() -> LastLayer:
    random = np.random.default_rng(2)
    kernel, centres = random.normal(0, 1, (16, len(CLASS_NAMES))), np.eye(16, 3)
    return LastLayer(kernel.astype(np.float32), np.arange(5, dtype=np.float32), centres.astype(np.float32))


@pytest.fixture(autouse=True)
def _tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tune_module, "load_backbone", tiny_backbone)


def tuned(
    dataset: Dataset, folder: Path, begin: LastLayer, recipe: TransferRecipe = TRANSFER,
    parts: tuple[Part, ...] = ("train",), validation: LabelledPixels | None = None, observer: Observer | None = None,
) -> Tuned:  # fmt: skip
    run = Run(folder / "tuned", "drawn", folder / "store", "cpu")
    return tune(dataset, recipe, run, observer or Observer(), begin, parts, validation)


def features_of(network: keras.Model, squares: LabelledPixels) -> np.ndarray:
    """What the last layer sees, float32 (N, 16)."""
    features = keras.Model(network.input, {"features": network.get_layer("logits").input})
    return predict(on_pixels(features, LITE_SCALE, LITE_OFFSET), np.asarray(squares.images))["features"]


def test_the_upper_layers_alone_change(dataset: Dataset, begin: LastLayer, tmp_path: Path) -> None:
    network, before = tuned(dataset, tmp_path, begin).network, tiny_backbone().model
    for name in ("lower", "lower_norm", "upper", "upper_norm"):
        pairs = zip(network.get_layer(name).get_weights(), before.get_layer(name).get_weights(), strict=True)
        differences = [np.abs(one - other).max() for one, other in pairs]
        assert (min(differences) > 0) if name.startswith("upper") else (max(differences) == 0)


def test_the_given_last_layer_is_the_beginning(dataset: Dataset, begin: LastLayer, tmp_path: Path) -> None:
    last = tuned(dataset, tmp_path, begin, STILL).network.get_layer("logits")
    for value, wanted in zip(last.get_weights(), (begin.kernel, begin.bias), strict=True):
        np.testing.assert_allclose(value, wanted, atol=1e-6)


@pytest.mark.parametrize("parts", [("train",), ("train", "validation")], ids=" ".join)
def test_distances_are_from_the_learned_photographs(
    parts: tuple[Part, ...], dataset: Dataset, begin: LastLayer, tmp_path: Path
) -> None:
    network = tuned(dataset, tmp_path, begin, STILL, parts).network
    squares = [dataset.squares(part) for part in parts]
    features = np.concatenate([features_of(network, part) for part in squares])
    wanted = find_centres(features, np.concatenate([part.class_indices for part in squares]))
    np.testing.assert_allclose(network.get_layer("cosines").get_weights()[0], wanted, atol=1e-5)


def test_the_last_epoch_is_kept_though_not_best(dataset: Dataset, begin: LastLayer, tmp_path: Path) -> None:
    validation = dataset.squares("validation")
    answered = on_pixels(tuned(dataset, tmp_path / "still", begin, STILL).network, LITE_SCALE, LITE_OFFSET)
    answers = predict(answered, np.asarray(validation.images))["logits"].argmax(axis=1)
    flattering = LabelledPixels(validation.images, answers)  # all right before anything is learned
    result = tuned(dataset, tmp_path, begin, validation=flattering)
    first, last = (epoch.validation_loss for epoch in result.history)
    assert first is not None
    assert last is not None
    assert first < last
    network = on_pixels(result.network, LITE_SCALE, LITE_OFFSET)
    assert validate(network, flattering)[0] == pytest.approx(last, abs=1e-5)
    assert not result.interrupted


def test_a_second_network_has_the_mean_weights_of_both(dataset: Dataset, begin: LastLayer, tmp_path: Path) -> None:
    first = tuned(dataset, tmp_path / "first", begin)
    alone = tuned(dataset, tmp_path / "alone", begin, FASTER)
    run = Run(tmp_path / "second", "drawn", tmp_path / "store", "cpu")
    second = tune(dataset, FASTER, run, Observer(), begin, ("train",), None, first)
    for mean, one, other in zip(second.weights, first.weights, alone.weights, strict=True):
        np.testing.assert_allclose(mean, (one + other) / 2, atol=1e-6)
    np.testing.assert_array_equal(second.network.get_layer("logits").get_weights()[0], second.weights[-2])
    squares = dataset.squares("train")
    wanted = find_centres(features_of(second.network, squares), squares.class_indices)
    np.testing.assert_allclose(second.network.get_layer("cosines").get_weights()[0], wanted, atol=1e-5)
