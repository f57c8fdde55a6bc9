import keras
import numpy as np
import pytest

from service.networks.alexnet import NETWORKS
from service.training.fold import fold_batch_norm, unfold_batch_norm


@pytest.mark.parametrize("name", ["alexnet_v1", "alexnet_v2"])
def test_the_folded_network_gives_the_same_logits(name: str) -> None:
    keras.utils.set_random_seed(1)
    random = np.random.default_rng(1)
    trained = NETWORKS[name](5, batch_norm=True)
    for layer in trained.layers:
        if isinstance(layer, keras.layers.BatchNormalization):  # as after a training
            layer.set_weights([random.uniform(0.5, 1.5, weight.shape) for weight in layer.get_weights()])
    images = random.random((4, 224, 224, 3), np.float32)

    plain = fold_batch_norm(trained, NETWORKS[name](5))

    logits = np.asarray(trained(images, training=False))
    assert np.abs(logits).max() > 0.1
    np.testing.assert_allclose(np.asarray(plain(images, training=False)), logits, atol=1e-4)
    assert plain.count_params() == NETWORKS[name](5).count_params()


def test_a_network_without_batch_norm_is_copied() -> None:
    trained = NETWORKS["alexnet_v2"](3)
    plain = fold_batch_norm(trained, NETWORKS["alexnet_v2"](3))
    for weight, copy in zip(trained.get_weights(), plain.get_weights(), strict=True):
        np.testing.assert_array_equal(copy, weight)


def test_unfolded_batch_norm_gives_the_same_logits() -> None:
    keras.utils.set_random_seed(1)
    plain, trained = NETWORKS["alexnet_v2"](5), NETWORKS["alexnet_v2"](5, batch_norm=True)
    random = np.random.default_rng(1)
    for layer in plain.layers:
        if layer.weights:  # biases are zeros at first
            kernel, bias = layer.get_weights()
            layer.set_weights([kernel, random.normal(0, 0.5, bias.shape)])
    images = random.random((8, 224, 224, 3), np.float32)

    unfold_batch_norm(plain, trained, images)

    expected = np.asarray(plain(images, training=False))
    assert np.abs(expected).max() > 0.1
    np.testing.assert_allclose(np.asarray(trained(images, training=False)), expected, atol=1e-3)
    # With the statistics of its own batch it begins there, too.
    first = keras.Model(trained.input, trained.get_layer("conv1_relu").output)
    at_training, at_inference = (np.asarray(first(images, training=is_training)) for is_training in (True, False))
    np.testing.assert_allclose(at_training, at_inference, atol=1e-3)
