"""Batch normalisation folded into the layer before it, and taken out again."""

import keras
import numpy as np

_BATCH_SIZE = 64


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


def unfold_batch_norm(plain: keras.Model, trained: keras.Model, images: np.ndarray) -> None:
    """Give `trained` weights and statistics with which it computes at inference what `plain` does.

    It is the reverse of `fold_batch_norm`, so that a training can go on from a stored network. `images`, float32
    (N, height, width, 3), are such as `trained` goes on with. The statistics are those of `plain` for them.
    """
    norms = {layer.name: layer for layer in trained.layers if isinstance(layer, keras.layers.BatchNormalization)}
    layers = [layer for layer in plain.layers if layer.weights]
    parts = np.array_split(images, -(-len(images) // _BATCH_SIZE))
    for layer in layers:
        norm, target = norms.get(f"{layer.name}_norm"), trained.get_layer(layer.name)
        if norm is None:
            target.set_weights(layer.get_weights())
            continue
        kernel, bias = layer.get_weights()
        upto = keras.Model(plain.input, layer.output)
        found = [np.asarray(upto(part, training=False), np.float64).reshape(-1, len(bias)) for part in parts]
        counts = np.array([len(one) for one in found], np.float64)
        mean = np.average([one.mean(axis=0) for one in found], axis=0, weights=counts)
        variance = np.average([((one - mean) ** 2).mean(axis=0) for one in found], axis=0, weights=counts)
        target.set_weights([kernel])
        norm.set_weights([np.sqrt(variance + norm.epsilon), mean, mean - bias, variance])
