import keras
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


# Kind, size or width, stride and padding of each layer, as the article has it.
FEATURE_LAYERS = [
    ("ZeroPadding2D", ((1, 2), (1, 2)), None, None),
    ("Conv2D", (11, 11), (4, 4), "valid"), ("ReLU", None, None, None), ("MaxPooling2D", (3, 3), (2, 2), "valid"),
    ("Conv2D", (5, 5), (1, 1), "same"), ("ReLU", None, None, None), ("MaxPooling2D", (3, 3), (2, 2), "valid"),
    ("Conv2D", (3, 3), (1, 1), "same"), ("ReLU", None, None, None),
    ("Conv2D", (3, 3), (1, 1), "same"), ("ReLU", None, None, None),
    ("Conv2D", (3, 3), (1, 1), "same"), ("ReLU", None, None, None), ("MaxPooling2D", (3, 3), (2, 2), "valid"),
    ("Flatten", None, None, None),
]  # fmt: skip


@pytest.mark.parametrize(("name", "hidden"), [("alexnet_v1", (2048, 2048)), ("alexnet_v2", (1024, 128))])
def test_every_layer_is_that_of_the_article(name: str, hidden: tuple[int, int]) -> None:
    found = []
    for layer in NETWORKS[name](5).layers[1:]:
        kind = type(layer).__name__
        size = getattr(layer, "kernel_size", getattr(layer, "pool_size", getattr(layer, "units", None)))
        if kind == "ZeroPadding2D":
            found.append((kind, layer.padding, None, None))
        elif kind != "Dropout":
            found.append((kind, size, getattr(layer, "strides", None), getattr(layer, "padding", None)))
        if kind in ("Conv2D", "Dense"):
            assert layer.activation.__name__ == "linear"
    relu = ("ReLU", None, None, None)
    classifier = [
        ("Dense", hidden[0], None, None),
        relu,
        ("Dense", hidden[1], None, None),
        relu,
        ("Dense", 5, None, None),
    ]
    assert found == [*FEATURE_LAYERS, *classifier]


@pytest.mark.parametrize("network", [alexnet_v1(3), alexnet_v2(3)], ids=["v1", "v2"])
def test_dropout_stands_before_each_hidden_dense_layer(network: object) -> None:
    names = [layer.name for layer in network.layers]  # type: ignore[attr-defined]
    for dropout, dense in (("dropout6", "dense6"), ("dropout7", "dense7")):
        assert names.index(dense) == names.index(dropout) + 1
        assert network.get_layer(dropout).rate == 0.2  # type: ignore[attr-defined]


def test_the_network_returns_logits_not_probabilities() -> None:
    keras.utils.set_random_seed(0)
    images = np.random.default_rng(0).random((2, 224, 224, 3), np.float32)
    logits = np.asarray(alexnet_v2(5)(images, training=False))
    assert logits.shape == (2, 5)
    assert not np.allclose(logits.sum(axis=1), 1)
    assert (logits < 0).any()
