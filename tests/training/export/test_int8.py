import numpy as np

from service.training.export.int8 import equalise
from service.training.export.steps import Convolution, Dense, Flatten, Pool, Steps

RANDOM = np.random.default_rng(0)
CONVOLUTION = Convolution(
    "first", RANDOM.standard_normal((4, 3, 2, 2)), RANDOM.standard_normal(4), (1, 1), (0, 0, 0, 0), relu=True
)
SECOND = Convolution(
    "second", RANDOM.standard_normal((2, 4, 2, 2)), RANDOM.standard_normal(2), (1, 1), (0, 0, 0, 0), relu=True
)
HIDDEN = Dense("hidden", RANDOM.standard_normal((2 * 4, 5)), RANDOM.standard_normal(5), relu=True)
LOGITS = Dense("logits", RANDOM.standard_normal((5, 3)), RANDOM.standard_normal(3))
NETWORK = Steps(
    7, 0.0, 1.0, (CONVOLUTION, Pool("pool", "MaxPool", (2, 2), (2, 2)), SECOND, Flatten("flatten"), HIDDEN, LOGITS)
)


def outputs(network: Steps, images: np.ndarray) -> dict[str, np.ndarray]:
    """Every step's output in float64, by the definition: images (N, 3, 7, 7)."""
    found, x = {}, images
    for step in network.steps:
        match step:
            case Convolution():
                windows = np.lib.stride_tricks.sliding_window_view(x, step.kernel.shape[2:], axis=(2, 3))
                x = np.einsum("nchwij,ocij->nohw", windows, step.kernel) + step.bias[:, None, None]
            case Pool():
                windows = np.lib.stride_tricks.sliding_window_view(x, step.size, axis=(2, 3))[:, :, ::2, ::2]
                x = windows.max(axis=(4, 5))
            case Flatten():
                x = x.reshape(len(x), -1)
            case Dense():
                x = x @ step.kernel + step.bias
        if isinstance(step, Convolution | Dense) and step.relu:
            x = np.maximum(x, 0)
        found[step.name] = x
    return found


def extremes_of(found: dict[str, np.ndarray]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    return {
        name: (x.min(axis=(0, *range(2, x.ndim))), x.max(axis=(0, *range(2, x.ndim))))
        for name, x in found.items()
        if name != "logits"
    }


IMAGES = RANDOM.uniform(0, 255, (6, 3, 7, 7))


def test_the_logits_stay_and_the_extremes_are_those_of_the_new_network() -> None:
    before = outputs(NETWORK, IMAGES)
    equalised, extremes = equalise(NETWORK, extremes_of(before))
    after = outputs(equalised, IMAGES)
    np.testing.assert_allclose(after["logits"], before["logits"], rtol=1e-9)
    for name, (low, high) in extremes_of(after).items():
        np.testing.assert_allclose(extremes[name][0], low, atol=1e-9)
        np.testing.assert_allclose(extremes[name][1], high, rtol=1e-9)


def test_channels_come_closer_to_each_other() -> None:
    scales = np.array([100.0, 1.0, 0.01, 1.0])
    lopsided = Convolution(
        "first", CONVOLUTION.kernel * scales[:, None, None, None], CONVOLUTION.bias * scales, (1, 1), (0, 0, 0, 0), True
    )
    network = Steps(7, 0.0, 1.0, (lopsided, *NETWORK.steps[1:]))
    before = extremes_of(outputs(network, IMAGES))
    _, after = equalise(network, before)
    for name in ("first", "pool"):
        assert np.ptp(np.log(after[name][1])) < np.ptp(np.log(before[name][1])) - np.log(30)


def test_a_channel_that_says_nothing_is_left_alone() -> None:
    kernel, bias = CONVOLUTION.kernel.copy(), CONVOLUTION.bias.copy()
    kernel[1], bias[1] = 0, -1
    silent = Convolution("first", kernel, bias, (1, 1), (0, 0, 0, 0), relu=True)
    network = Steps(7, 0.0, 1.0, (silent, *NETWORK.steps[1:]))
    before = outputs(network, IMAGES)
    equalised, _ = equalise(network, extremes_of(before))
    np.testing.assert_array_equal(equalised.steps[0].bias[1], -1)  # type: ignore[union-attr]
    np.testing.assert_allclose(outputs(equalised, IMAGES)["logits"], before["logits"], rtol=1e-9)


def test_a_layer_without_relu_keeps_its_scale() -> None:
    linear = Convolution("first", CONVOLUTION.kernel, CONVOLUTION.bias, (1, 1), (0, 0, 0, 0))
    network = Steps(7, 0.0, 1.0, (linear, *NETWORK.steps[1:]))
    equalised, _ = equalise(network, extremes_of(outputs(network, IMAGES)))
    np.testing.assert_array_equal(equalised.steps[0].kernel, linear.kernel)  # type: ignore[union-attr]
