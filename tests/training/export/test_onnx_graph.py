"""The graphs against Keras itself, layer by layer: padding, strides, order of weights, normalisation, temperature."""

import keras
import numpy as np
import onnxruntime
import pytest
from keras import layers
from numpy.typing import NDArray
from onnx import TensorProto

from service.errors import PublishError
from service.imaging.pixels import Pixels
from service.networks.alexnet import alexnet_v2
from service.training.export.light_model import ready_for_int8
from service.training.export.onnx_graph import Quantisation, _Writer, float32_model, int8_model
from service.training.export.steps import Convolution, Dense, Flatten, Pads, Steps, read_network

SCALE, OFFSET, TEMPERATURE = 1 / 127.5, -1.0, 0.7


def run(model: object, images: Pixels) -> NDArray[np.float32]:
    session = onnxruntime.InferenceSession(model.SerializeToString())  # type: ignore[attr-defined]
    return np.asarray(session.run(["probabilities"], {"images": images})[0])


def expected(network: keras.Model, images: Pixels, scale: float = SCALE, offset: float = OFFSET) -> NDArray[np.float32]:
    logits = network(images.astype(np.float32) * np.float32(scale) + np.float32(offset), training=False)
    return np.asarray(keras.ops.softmax(logits / TEMPERATURE))


def noise(size: int, num_images: int = 5) -> Pixels:
    return np.random.default_rng(1).integers(0, 256, (num_images, size, size, 3), np.uint8)


def shaken(network: keras.Model) -> keras.Model:
    """With biases that are not zero and logits far from equal, so that nothing can be left out unseen."""
    random = np.random.default_rng(2)
    network.set_weights([weight + 0.1 * random.standard_normal(weight.shape) for weight in network.get_weights()])
    return network


def chain(size: int, *middle: keras.Layer) -> keras.Model:
    return shaken(keras.Sequential([keras.Input((size, size, 3)), *middle, layers.Flatten(), layers.Dense(4)]))


CHAINS = {
    "asymmetric padding before a strided convolution": lambda: chain(
        20, layers.ZeroPadding2D(((1, 2), (0, 3))), layers.Conv2D(5, (5, 3), strides=(4, 2))
    ),
    "same padding of an even kernel": lambda: chain(15, layers.Conv2D(5, 4, padding="same")),
    "same padding with strides": lambda: chain(15, layers.Conv2D(5, 3, strides=2, padding="same")),
    "both kinds of padding": lambda: chain(
        12, layers.ZeroPadding2D(1), layers.Conv2D(5, 3, padding="same", activation="relu")
    ),
    "a convolution without bias, a ReLU of its own, overlapping pools": lambda: chain(
        21, layers.Conv2D(6, 3, use_bias=False), layers.ReLU(), layers.MaxPooling2D(3, 2), layers.AveragePooling2D(2)
    ),
    "pooling before the first weights": lambda: chain(16, layers.AveragePooling2D(4), layers.Conv2D(4, 1)),
    "dense layers alone": lambda: shaken(
        keras.Sequential(
            [keras.Input((6, 6, 3)), layers.Flatten(), layers.Dense(7, activation="relu"), layers.Dense(4)]
        )
    ),
}


@pytest.mark.parametrize("name", CHAINS)
@pytest.mark.parametrize(("scale", "offset"), [(SCALE, OFFSET), (1 / 255, 0.0), (0.02, -2.3)])
def test_the_graph_computes_what_keras_computes(name: str, scale: float, offset: float) -> None:
    network = CHAINS[name]()
    images = noise(network.input_shape[1])
    steps = read_network(network, scale=scale, offset=offset, temperature=TEMPERATURE)
    np.testing.assert_allclose(run(float32_model(steps), images), expected(network, images, scale, offset), atol=1e-5)


@pytest.mark.parametrize("name", CHAINS)
@pytest.mark.parametrize("with_dense_layers", [True, False])
def test_int8_stays_close_to_it(name: str, with_dense_layers: bool) -> None:
    network = CHAINS[name]()
    images = noise(network.input_shape[1])
    steps = read_network(network, scale=SCALE, offset=OFFSET, temperature=TEMPERATURE)
    model = int8_model(*ready_for_int8(steps, images), with_dense_layers=with_dense_layers)
    np.testing.assert_allclose(run(model, images), expected(network, images), atol=0.05)


@pytest.mark.parametrize("pads", [(0, 0, 0, 0), (1, 2, 0, 1), (2, 0, 3, 4)])
@pytest.mark.parametrize(("width", "kernel", "stride"), [(20, 5, 4), (21, 3, 2), (17, 2, 4), (16, 4, 4), (19, 11, 3)])
def test_merged_pixels_give_the_same_sums_to_the_bit(
    width: int, kernel: int, stride: int, pads: Pads, monkeypatch: pytest.MonkeyPatch
) -> None:
    random = np.random.default_rng(5)
    side = (width + pads[1] + pads[3] - kernel) // stride + 1
    height = (width + pads[0] + pads[2] - kernel) // stride + 1
    first = Convolution(
        "first", random.standard_normal((4, 3, kernel, kernel)), random.standard_normal(4), (stride, stride), pads
    )
    last = Dense("last", random.standard_normal((4 * side * height, 5)) / 50, random.standard_normal(5))
    steps = Steps(width, -110.0, SCALE, (first, Flatten("flat"), last))
    ranges = {"first": (-9.0, 9.0), "flat": (-9.0, 9.0)}
    images = noise(width) // 2  # where a CPU has no VNNI, larger bytes overflow in its sums of two, and another two now
    merged = run(int8_model(steps, ranges), images)
    monkeypatch.setattr(_Writer, "merge_pixels", lambda writer, first, *_: (first, writer.transpose()))
    np.testing.assert_array_equal(merged, run(int8_model(steps, ranges), images))


@pytest.mark.parametrize("with_dense_layers", [True, False])
def test_int8_weighs_layers_with_8_bits_and_the_others_with_16(with_dense_layers: bool) -> None:
    steps = read_network(alexnet_v2(5), scale=SCALE, offset=OFFSET, temperature=1.0)
    ranges = {step.name: (0.0, 6.0) for step in steps.steps[:-1]}
    model = int8_model(steps, ranges, with_dense_layers=with_dense_layers)
    kinds = {weight.name: weight.data_type for weight in model.graph.initializer if weight.name.endswith("/kernel")}
    in_int8 = {f"conv{number}/kernel" for number in range(1, 6)}
    if with_dense_layers:
        in_int8 |= {"dense6/kernel", "dense7/kernel"}
    assert {name for name, kind in kinds.items() if kind == TensorProto.INT8} == in_int8
    assert {name for name, kind in kinds.items() if kind == TensorProto.FLOAT16} == kinds.keys() - in_int8
    assert model.ByteSize() < float32_model(steps).ByteSize() / (3.9 if with_dense_layers else 2.1)


def test_every_byte_of_a_range_is_used_and_zero_is_exact() -> None:
    assert Quantisation.of_range(0.0, 25.5) == Quantisation(0.1, 0)
    assert Quantisation.of_range(-1.0, 1.0).zero_point in (127, 128)
    assert Quantisation.of_range(3.0, 51.0) == Quantisation(0.2, 0)
    assert Quantisation.of_range(0.0, 0.0).scale > 0


@pytest.mark.parametrize(
    ("layer", "what"),
    [
        (layers.LayerNormalization(name="odd"), "layer odd is a LayerNormalization"),
        (layers.MaxPooling2D(2, padding="same", name="odd"), "layer odd is a MaxPooling2D"),
        (layers.ReLU(), "a ReLU follows"),
    ],
)
def test_a_layer_that_no_network_of_ours_has_is_refused(layer: keras.Layer, what: str) -> None:
    network = chain(8, layers.MaxPooling2D(2), layer)
    with pytest.raises(PublishError, match=what):
        read_network(network, scale=SCALE, offset=OFFSET, temperature=1.0)


def test_a_network_that_returns_no_logits_is_refused() -> None:
    network = keras.Sequential([keras.Input((8, 8, 3)), layers.Flatten(), layers.Dense(4, activation="relu")])
    with pytest.raises(PublishError, match="logits"):
        read_network(network, scale=SCALE, offset=OFFSET, temperature=1.0)
