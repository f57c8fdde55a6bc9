import keras
import numpy as np
from keras import layers

from service.imaging.pixels import Pixels
from service.training.export.int8 import equalise

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
