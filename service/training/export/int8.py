"""Scale moved from each layer into the next, so that one scale for all its channels serves each of them in int8."""

import itertools
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from service.training.export.steps import Array, Convolution, Dense, Steps

Extremes = tuple[Array, Array]
"""The least and the largest output of every channel or unit, each (channels,)."""


def equalise(network: Steps, extremes: Mapping[str, Extremes]) -> tuple[Steps, dict[str, Extremes]]:
    """The same function with its channels alike in size.

    Between two layers are only ReLU, pooling and flattening, which leave a positive factor as it is: so the channel of
    one may be divided by any, and the weights that read it multiplied by the same. Taken is the geometric mean of the
    channel's largest output and the inverse of the largest of these weights, which leaves as many bits to the one as
    to the other.

    Args:
        network: as `read_network` gives it.
        extremes: name of a step -> those of its output on some photographs, for all steps but the last.

    Returns:
        The network, whose answers differ by rounding alone, and the extremes of its steps.

    Source: Xiao et al. (2023), "SmoothQuant", section 4, with a migration strength of 0.5, for the factor; Nagel et al.
    (2019), "Data-Free Quantization Through Weight Equalization and Bias Correction", section 4.1, for the identity.
    """
    steps, found = list(network.steps), dict(extremes)
    layers = [number for number, step in enumerate(steps) if isinstance(step, Convolution | Dense)]
    for number, following in itertools.pairwise(layers):
        layer, reader = steps[number], steps[following]
        assert isinstance(layer, Convolution | Dense)
        assert isinstance(reader, Convolution | Dense)
        if not layer.relu:
            continue
        factors = _factors(found[layer.name][1], _largest_weights(reader, len(layer.bias)))
        steps[number] = replace(layer, kernel=_scaled_outputs(layer, 1 / factors), bias=layer.bias / factors)
        steps[following] = replace(reader, kernel=_scaled_inputs(reader, factors))
        for step in steps[number:following]:
            low, high = found[step.name]
            each = np.repeat(factors, len(high) // len(factors))  # flattened, a channel is many units
            found[step.name] = low / each, high / each
    return replace(network, steps=tuple(steps)), found


def _factors(largest_outputs: Array, largest_weights: Array) -> Array:
    """1 for a channel that never says anything or that nobody reads; else so that their geometric mean is 1."""
    is_used = (largest_outputs > 0) & (largest_weights > 0)
    factors = np.ones(len(largest_outputs))
    factors[is_used] = np.sqrt(largest_outputs[is_used] / largest_weights[is_used])
    if is_used.any():
        factors[is_used] /= np.exp(np.log(factors[is_used]).mean())
    return factors


def _largest_weights(reader: Convolution | Dense, num_channels: int) -> Array:
    """By channel that is read; a dense layer's rows come in the order of (C, H, W)."""
    kernel = np.abs(reader.kernel)
    if isinstance(reader, Convolution):
        return np.asarray(kernel.max(axis=(0, 2, 3)))
    return np.asarray(kernel.reshape(num_channels, -1).max(axis=1))


def _scaled_outputs(layer: Convolution | Dense, factors: Array) -> Array:
    if isinstance(layer, Convolution):
        return np.asarray(layer.kernel * factors[:, None, None, None])
    return np.asarray(layer.kernel * factors)


def _scaled_inputs(reader: Convolution | Dense, factors: Array) -> Array:
    if isinstance(reader, Convolution):
        return np.asarray(reader.kernel * factors[:, None, None])
    return np.asarray(reader.kernel * np.repeat(factors, len(reader.kernel) // len(factors))[:, None])
