import numpy as np
import pytest

from service.networks.alexnet import NETWORKS, alexnet_v1, alexnet_v2

FEATURES = {
    "pad": (227, 227, 3),
    "conv1": (55, 55, 48),
    "pool1": (27, 27, 48),
    "conv2": (27, 27, 128),
    "pool2": (13, 13, 128),
    "conv3": (13, 13, 192),
    "conv4": (13, 13, 192),
    "conv5": (13, 13, 128),
    "pool5": (6, 6, 128),
    "flatten": (4608,),
}


@pytest.mark.parametrize(("name", "parameters"), [("alexnet_v1", 14_591_685), ("alexnet_v2", 5_797_317)])
def test_the_network_has_exactly_the_articles_parameters(name: str, parameters: int) -> None:
    assert NETWORKS[name](5).count_params() == parameters


@pytest.mark.parametrize(
    ("name", "classifier"),
    [
        ("alexnet_v1", {"dense6": (2048,), "dense7": (2048,), "logits": (5,)}),
        ("alexnet_v2", {"dense6": (1024,), "dense7": (128,), "logits": (5,)}),
    ],
)
@pytest.mark.parametrize("batch_norm", [False, True])
def test_every_layer_has_the_shape_in_the_ledger(
    name: str, classifier: dict[str, tuple[int, ...]], batch_norm: bool
) -> None:
    network = NETWORKS[name](5, batch_norm=batch_norm)
    for layer, shape in (FEATURES | classifier).items():
        assert network.get_layer(layer).output.shape == (None, *shape), layer


@pytest.mark.parametrize("network", [alexnet_v1(3), alexnet_v2(3)], ids=["v1", "v2"])
def test_dropout_of_a_fifth_stands_before_each_hidden_dense_layer(network: object) -> None:
    names = [layer.name for layer in network.layers]  # type: ignore[attr-defined]
    for dropout, dense in (("dropout6", "dense6"), ("dropout7", "dense7")):
        assert names.index(dense) == names.index(dropout) + 1
        assert network.get_layer(dropout).rate == 0.2  # type: ignore[attr-defined]


def test_the_network_returns_logits_not_probabilities() -> None:
    images = np.random.default_rng(0).random((2, 224, 224, 3), np.float32)
    logits = np.asarray(alexnet_v2(5)(images, training=False))
    assert logits.shape == (2, 5)
    assert not np.allclose(logits.sum(axis=1), 1)
    assert (logits < 0).any()
