"""Batch normalisation folded into the layer before it."""

import keras
import numpy as np


def fold_batch_norm(trained: keras.Model, plain: keras.Model) -> keras.Model:
    """Give `plain` the weights that make it compute what `trained` computes at inference, and return it.

    `trained` is a network of `networks/`, `plain` the same without `batch_norm`. Logits differ by less than 1e-4.

    Source: Jacob et al. (2018), "Quantization and Training of Neural Networks", section 3.2.
    """
    norms = {layer.name: layer for layer in trained.layers if isinstance(layer, keras.layers.BatchNormalization)}
    for layer in plain.layers:
        if not layer.weights:
            continue
        source = trained.get_layer(layer.name)
        norm = norms.get(f"{layer.name}_norm")
        layer.set_weights(source.get_weights() if norm is None else _folded(source.get_weights()[0], norm))
    return plain


def _folded(kernel: np.ndarray, norm: keras.layers.BatchNormalization) -> list[np.ndarray]:
    # norm(x @ kernel) = (x @ kernel - mean) * gain + beta with gain = gamma / sqrt(variance + epsilon).
    # The last axis of a kernel, convolution or dense, is the output channel. float64 rounds once.
    gamma, beta, mean, variance = (np.asarray(value, np.float64) for value in norm.get_weights())
    gain = gamma / np.sqrt(variance + norm.epsilon)
    return [(kernel * gain).astype(np.float32), (beta - mean * gain).astype(np.float32)]
