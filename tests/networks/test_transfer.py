import numpy as np
from support.fitting import drawn_pixels, tiny_backbone

from service.networks.transfer import transfer_network
from service.training.last_layer import LastLayer


def test_logits_and_distances_are_those_of_the_last_layer() -> None:
    backbone, random = tiny_backbone(), np.random.default_rng(1)
    num_features = backbone.model.output_shape[1]
    centres = random.standard_normal((num_features, 4)).astype(np.float32)
    kernel, bias = random.standard_normal((num_features, 3)), random.standard_normal(3)
    last = LastLayer(
        kernel.astype(np.float32), bias.astype(np.float32), centres / np.linalg.norm(centres, axis=0, keepdims=True)
    )
    network = transfer_network(backbone.model, last.kernel, last.bias, last.centres)
    images = np.asarray(backbone.prepare(drawn_pixels(0, 1).images))
    features, outputs = np.asarray(backbone.model(images)), network(images)
    assert set(outputs) == {"logits", "distance"}
    np.testing.assert_allclose(outputs["logits"], last.logits(features), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(outputs["distance"], last.distances(features), atol=1e-5)
    assert network.name == "efficientnet_lite0"
    # A mean of 0 has no direction. Its distance is 1, as if it were at a right angle to each centre.
    assert last.distances(np.zeros((1, num_features), np.float32)) == 1
