"""The graphs against Keras itself, layer by layer: padding, strides, order of weights, normalisation, temperature."""

import keras
import numpy as np
import onnxruntime
import pytest
from keras import layers
from numpy.typing import NDArray
from onnx import TensorProto

from service.imaging.pixels import Pixels
from service.training.export.int8 import equalise, int8_model
from service.training.export.onnx_graph import float32_model

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
    "a ReLU of its own, overlapping pools": lambda: chain(
        21, layers.Conv2D(6, 3), layers.ReLU(), layers.MaxPooling2D(3, 2), layers.AveragePooling2D(2)
    ),
    "pooling before the first weights": lambda: chain(16, layers.AveragePooling2D(4), layers.Conv2D(4, 1)),
    "dense layers alone": lambda: shaken(
        keras.Sequential(
            [keras.Input((6, 6, 3)), layers.Flatten(), layers.Dense(7, activation="relu"), layers.Dense(4)]
        )
    ),
}


@pytest.mark.parametrize(
    ("name", "scale", "offset"),
    [
        *((name, SCALE, OFFSET) for name in CHAINS),
        ("dense layers alone", 1 / 255, 0.0),
        ("asymmetric padding before a strided convolution", 0.02, -2.3),
    ],
)
def test_the_graph_computes_what_keras_computes(name: str, scale: float, offset: float) -> None:
    network = CHAINS[name]()
    images = noise(network.input_shape[1])
    model = float32_model(network, scale=scale, offset=offset, temperature=TEMPERATURE)
    np.testing.assert_allclose(run(model, images), expected(network, images, scale, offset), atol=1e-5)


@pytest.mark.parametrize(
    ("name", "with_dense_layers"), [*((name, True) for name in CHAINS), ("dense layers alone", False)]
)
def test_int8_stays_close_to_it(name: str, with_dense_layers: bool) -> None:
    network = CHAINS[name]()
    images = noise(network.input_shape[1])
    equalised = equalise(network, images, scale=SCALE, offset=OFFSET)
    numbers = {"scale": SCALE, "offset": OFFSET, "temperature": TEMPERATURE}
    model = int8_model(equalised, images, **numbers, with_dense_layers=with_dense_layers)
    np.testing.assert_allclose(run(model, images), expected(network, images), atol=0.05)


@pytest.mark.parametrize(
    ("width", "kernel", "stride", "pads"),
    [
        (20, 5, 4, (0, 0, 0, 0)),
        (21, 3, 2, (1, 2, 0, 1)),
        (17, 2, 4, (2, 0, 3, 4)),
        (16, 4, 4, (0, 0, 0, 0)),
        (19, 11, 3, (2, 0, 3, 4)),
    ],
)
@pytest.mark.parametrize(("scale", "offset"), [(SCALE, OFFSET), (1 / 255, 0.0), (1 / 64, -1.7)])
def test_merged_pixels_stay_close_to_single_ones(
    width: int, kernel: int, stride: int, pads: tuple[int, int, int, int], scale: float, offset: float
) -> None:
    top, left, bottom, right = pads
    padding = layers.ZeroPadding2D(((top, bottom), (left, right)))
    network = chain(width, padding, layers.Conv2D(4, kernel, strides=stride, activation="relu"))
    images = noise(width) // 2  # where a CPU has no VNNI, larger bytes overflow in its sums of two
    model = int8_model(network, images, scale=scale, offset=offset, temperature=TEMPERATURE)
    kinds = [node.op_type for node in model.graph.node if node.op_type not in ("QuantizeLinear", "DequantizeLinear")]
    assert kinds[: kinds.index("Conv")] in (["Reshape", "Transpose"], ["Pad", "Reshape", "Transpose"])
    np.testing.assert_allclose(run(model, images), expected(network, images, scale, offset), atol=0.05)


@pytest.mark.parametrize("with_dense_layers", [True, False])
def test_all_but_the_last_layer_weighs_8_bits(with_dense_layers: bool) -> None:
    network = chain(8, layers.Conv2D(5, 3), layers.Flatten(), layers.Dense(6, activation="relu"))
    numbers = {"scale": SCALE, "offset": OFFSET, "temperature": 1.0}
    model = int8_model(network, noise(8), **numbers, with_dense_layers=with_dense_layers)
    kernels = [weight.data_type for weight in model.graph.initializer if len(weight.dims) > 1]
    assert kernels.count(TensorProto.INT8) == (2 if with_dense_layers else 1)
    assert kernels.count(TensorProto.FLOAT) == (1 if with_dense_layers else 2)
