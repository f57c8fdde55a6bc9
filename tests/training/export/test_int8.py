from typing import Any

import keras
import numpy as np
import onnx
import pytest
from keras import layers

from service.engines.engine import EngineInfo, Scores
from service.engines.onnx_runtime import OnnxRuntimeEngine
from service.imaging.pixels import Pixels
from service.networks.transfer import transfer_network
from service.training.calibrate import energies, softmax
from service.training.export import int8
from service.training.export.int8 import equalise, int8_pretrained_model

SCALE, OFFSET = 1 / 127.5, -1.0
IMAGES: Pixels = np.random.default_rng(0).integers(0, 256, (6, 7, 7, 3), np.uint8)


def network() -> keras.Model:
    keras.utils.set_random_seed(3)
    built = keras.Sequential(
        [
            keras.Input((7, 7, 3)),
            layers.Conv2D(4, 2, activation="relu", name="first"),
            layers.MaxPooling2D(2),
            layers.Conv2D(2, 2, name="second"),
            layers.ReLU(),
            layers.Flatten(),
            layers.Dense(5, activation="relu"),
            layers.Dense(3),
        ]
    )
    random = np.random.default_rng(4)
    built.set_weights([random.standard_normal(weight.shape) for weight in built.get_weights()])
    return built


def with_first(scales: np.ndarray) -> keras.Model:
    """The network with the filters of its first layer so many times as large."""
    built = network()
    kernel, bias = built.get_layer("first").get_weights()
    built.get_layer("first").set_weights([kernel * scales, bias * scales])
    return built


def answers(built: keras.Model) -> np.ndarray:
    return np.asarray(built(IMAGES.astype(np.float32) * SCALE + OFFSET))


def largest_outputs(built: keras.Model, layer: str) -> np.ndarray:
    part = keras.Model(built.inputs[0], built.get_layer(layer).output)
    return np.asarray(answers(part).max(axis=(0, 1, 2)))


def test_the_logits_stay_and_the_given_network_too() -> None:
    built = network()
    before, weights = answers(built), built.get_weights()
    equalised = equalise(built, IMAGES, scale=SCALE, offset=OFFSET)
    np.testing.assert_allclose(answers(equalised), before, rtol=1e-4, atol=1e-4)
    for now, then in zip(built.get_weights(), weights, strict=True):
        np.testing.assert_array_equal(now, then)


def test_channels_come_closer_to_each_other() -> None:
    built = with_first(np.array([100.0, 1.0, 0.01, 1.0]))
    equalised = equalise(built, IMAGES, scale=SCALE, offset=OFFSET)
    before, after = (np.ptp(np.log(largest_outputs(each, "first"))) for each in (built, equalised))
    assert after < before - np.log(30)


def test_a_channel_that_says_nothing_is_left_alone() -> None:
    built = network()
    kernel, bias = built.get_layer("first").get_weights()
    kernel[..., 1], bias[1] = 0, -1
    built.get_layer("first").set_weights([kernel, bias])
    equalised = equalise(built, IMAGES, scale=SCALE, offset=OFFSET)
    assert equalised.get_layer("first").get_weights()[1][1] == -1
    np.testing.assert_allclose(answers(equalised), answers(built), rtol=1e-4, atol=1e-4)


LITE = {"scale": 1 / 128, "offset": -127 / 128}


def lite_network() -> keras.Model:
    """EfficientNet-Lite in small, with a last layer for three colours: normal and depthwise convolutions."""
    images = x = keras.Input((24, 24, 3))
    for seed, filters in enumerate((8, 0, 8, 0, 16)):
        start = keras.initializers.HeNormal(seed)
        depthwise = layers.DepthwiseConv2D(3, depthwise_initializer=start)
        convolution = layers.Conv2D(filters, 3, kernel_initializer=start) if filters else depthwise
        x = layers.ReLU(6.0)(layers.BatchNormalization()(convolution(x)))
    backbone = keras.Model(images, layers.GlobalAveragePooling2D()(x))
    features = np.asarray(backbone(coloured(range(90)) * np.float32(LITE["scale"]) + np.float32(LITE["offset"])))
    wanted = np.tile(np.eye(3) * 6 - 3, (30, 1))
    *kernel, bias = np.linalg.lstsq(np.column_stack([features, np.ones(90)]), wanted)[0]
    means = np.stack([features[colour::3].mean(axis=0) for colour in range(3)], axis=1)  # (F, 3)
    return transfer_network(backbone, np.array(kernel), bias, means / np.linalg.norm(means, axis=0))


def coloured(seeds: range) -> Pixels:
    """Noise that is brightest in red, green or blue, in turn."""
    images = np.stack([np.random.default_rng(seed).integers(0, 150, (24, 24, 3)) for seed in seeds])
    for place, image in enumerate(images):
        image[..., place % 3] += np.random.default_rng(place).integers(50, 106)
    return images.astype(np.uint8)


def test_a_pretrained_network_answers_alike_in_int8() -> None:
    network, images = lite_network(), coloured(range(100, 160))
    model = int8_pretrained_model(network, coloured(range(30)), **LITE, temperature=1.2)
    weights = [tensor for tensor in model.graph.initializer if len(tensor.dims) == 4]
    assert sorted(tensor.data_type for tensor in weights) == [1, 1, 1, 3, 3]  # float32 and int8
    content = model.SerializeToString()
    engine = OnnxRuntimeEngine(content, EngineInfo("onnxruntime", "cpu", "int8", "the test"), version="1")
    found = engine.run(images)
    engine.close()
    outputs = network(images * np.float32(LITE["scale"]) + np.float32(LITE["offset"]))
    logits = np.asarray(outputs["logits"])
    expected = Scores(softmax(logits, 1.2).astype(np.float32), energies(logits), np.asarray(outputs["distance"]))
    np.testing.assert_array_equal(expected.probabilities.argmax(axis=1), np.arange(60) % 3)
    np.testing.assert_array_equal(found.probabilities.argmax(axis=1), np.arange(60) % 3)
    assert np.abs(found.probabilities - expected.probabilities).max() < 0.05
    for ours, reference in ((found.energy, expected.energy), (found.distance, expected.distance)):
        assert ours is not None
        assert reference is not None
        difference = np.abs(ours - reference)
        assert 0 < difference.max() < 0.5 * reference.std()


class Quantised(Exception):
    """The graph would now be quantised."""


@pytest.mark.parametrize(("given", "used"), [(300, 100), (30, 30)])
def test_at_most_128_photographs_fit_a_pretrained_network(
    given: int, used: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[Pixels] = []

    def quantise(exported: Any, path: Any, reader: Any, **_: Any) -> None:
        while batch := reader.get_next():
            shown.extend(batch["images"])
        raise Quantised

    monkeypatch.setattr(int8, "float32_model", lambda *_, **__: onnx.ModelProto())
    monkeypatch.setattr(int8, "quantize_static", quantise)
    images = np.arange(given, dtype=np.uint16).astype(np.uint8)[:, None, None, None]
    with pytest.raises(Quantised):
        int8_pretrained_model(keras.Sequential(), images, **LITE, temperature=1.0)
    assert len(shown) == used
