import keras
import numpy as np
import pytest
from support.fitting import drawn_pixels, tiny_network

from service.training.calibrate import energies
from service.training.trained_network import add_known, on_pixels

IMAGES = np.asarray(drawn_pixels(0, 1).images)


@pytest.mark.parametrize("num_features", [0, 4])
def test_the_network_behind_its_normalisation_shares_the_weights(num_features: int) -> None:
    network = tiny_network(5)
    model = on_pixels(network, 1 / 127.5, -1.0, hidden_layer="dense6_relu", num_features=num_features)
    network.get_layer("logits").bias.assign(np.arange(5, dtype=np.float32))
    outputs = model.predict_on_batch(IMAGES)
    expected = network.predict_on_batch(np.asarray(IMAGES, np.float32) * np.float32(1 / 127.5) - np.float32(1))
    np.testing.assert_allclose(np.asarray(outputs["logits"]), np.asarray(expected), atol=1e-5)
    assert set(outputs) == ({"logits", "features"} if num_features else {"logits"})


def test_the_features_are_foretold_by_the_hidden_layer() -> None:
    network = tiny_network(5)
    model = on_pixels(network, 1 / 255, 0.0, hidden_layer="dense6_relu", num_features=3)
    kernel, bias = model.layers[-1].get_weights()
    assert (kernel.shape, bias.shape) == ((16, 3), (3,))
    assert not kernel.any()


def test_known_is_the_negative_energy_without_a_weight() -> None:
    model = on_pixels(tiny_network(5), 1 / 255, 0.0)
    knowing = keras.Model(model.input, add_known(model.output))
    outputs = knowing.predict_on_batch(IMAGES)
    np.testing.assert_allclose(outputs["known"][:, 0], -energies(np.asarray(outputs["logits"])), atol=1e-5)
    assert knowing.count_params() == model.count_params()
