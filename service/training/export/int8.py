"""Networks in int8, quantised by onnxruntime.

Weights are int8 with a scale per filter or unit. Activations are uint8 with a scale per tensor, from their extremes on
training photographs. The last layer, and the scores made of it, compute in float32.

Source: Jacob et al. (2018), "Quantization and Training of Neural Networks", section 2.
"""

import itertools
import tempfile
from pathlib import Path
from typing import Any

import keras
import numpy as np
import onnx
from numpy.typing import NDArray
from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static

from service.imaging.pixels import Pixels
from service.store.layout import INPUT
from service.training.export.onnx_graph import export_graph, float32_model
from service.training.trained_network import score_outputs

_QUANTISED = ["Conv", "Gemm", "MatMul", "MaxPool", "Relu", "Reshape", "Transpose"]
_BATCH = 8  # all their feature maps are in memory
_NUM_CALIBRATION_PRETRAINED = 128  # more take longer, and change no limit that matters


def int8_model(
    network: keras.Model, calibration: Pixels, *, scale: float, offset: float, temperature: float,
    with_dense_layers: bool = True,
) -> onnx.ModelProto:  # fmt: skip
    """Export a network with its convolutions in int8, and with its hidden dense layers if `with_dense_layers`.

    `calibration` are training photographs, uint8 (N, image_size, image_size, 3). The other arguments and the result are
    those of `float32_model`. `equalise` makes a network ready.
    """
    over_bytes, is_merged = _merge_pixels(network, scale, offset)
    exported = export_graph(keras.Model(over_bytes.input, score_outputs(over_bytes.output, temperature)))
    dense = [node.name for node in exported.graph.node if node.op_type in ("Gemm", "MatMul")]
    first = next((node.input[0] for node in exported.graph.node if node.op_type == "Conv"), "")
    one_each = {"scale": np.array(1, np.float32), "zero_point": np.array(_zero_byte(scale, offset), np.uint8)}
    quantised = _quantise(
        exported, calibration, _QUANTISED, excluded=dense[-1:] if with_dense_layers else dense,
        overrides={first: [one_each]} if is_merged else {},
    )  # fmt: skip
    if is_merged:
        _keep_bytes(quantised.graph)
    onnx.checker.check_model(quantised, full_check=True)
    return quantised


def int8_pretrained_model(
    network: keras.Model, calibration: Pixels, *, scale: float, offset: float, temperature: float
) -> onnx.ModelProto:
    """Export an EfficientNet-Lite with its convolutions in int8, but for the first three.

    Those see few channels, whose sizes differ most. They are 5 % of all multiplications, and cause half of the changed
    answers. Arguments and result are those of `int8_model`. At most 128 of the calibrating photographs are used.
    """
    exported = float32_model(network, scale=scale, offset=offset, temperature=temperature)
    convolutions = [node.name for node in exported.graph.node if node.op_type == "Conv"]
    some = calibration[:: -(-len(calibration) // _NUM_CALIBRATION_PRETRAINED)]
    quantised = _quantise(exported, some, ["Conv", "Clip"], excluded=convolutions[:3])
    onnx.checker.check_model(quantised, full_check=True)
    return quantised


def _quantise(
    exported: onnx.ModelProto, calibration: Pixels, operators: list[str], *, excluded: list[str],
    overrides: dict[str, Any] | None = None,
) -> onnx.ModelProto:  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="flowers-export-") as scratch:
        path = Path(scratch, "int8.onnx")
        quantize_static(
            exported, path, _Batches(calibration), op_types_to_quantize=operators, nodes_to_exclude=excluded,
            per_channel=True, activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8,
            extra_options={"TensorQuantOverrides": overrides or {}},
        )  # fmt: skip
        return onnx.load(path)


def equalise(network: keras.Model, calibration: Pixels, *, scale: float, offset: float) -> keras.Model:
    """Copy the network with its channels alike in size, so that one scale serves all channels of a tensor.

    Its answers differ by rounding alone. Arguments are those of `int8_model`. ReLU, pooling and flattening between two
    layers leave a positive factor as it is. So each channel is divided by one, and the weights that read it are
    multiplied by the same. The factor is the geometric mean of the channel's largest output and the inverse of the
    largest of these weights. That leaves both as many bits.

    Sources: Xiao et al. (2023), "SmoothQuant", section 4, with a migration strength of 0.5. Nagel et al. (2019),
    "Data-Free Quantization Through Weight Equalization and Bias Correction", section 4.1.
    """
    equalised = keras.models.clone_model(network)
    equalised.set_weights(network.get_weights())
    layers = [layer for layer in equalised.layers if layer.weights]
    outputs = keras.Model(equalised.inputs[0], [layer.output for layer in layers[:-1]])
    largest = [np.zeros(layer.bias.shape) for layer in layers[:-1]]
    for start in range(0, len(calibration), _BATCH):
        found = outputs(calibration[start : start + _BATCH].astype(np.float32) * scale + offset)
        for high, output in zip(largest, keras.tree.flatten(found), strict=True):
            np.maximum(high, np.asarray(output).reshape(-1, len(high)).max(axis=0), out=high)
    for high, (layer, reader) in zip(largest, itertools.pairwise(layers), strict=True):
        (kernel, bias), (read_by, reader_bias) = layer.get_weights(), reader.get_weights()
        rows = read_by.reshape(-1, len(bias), read_by.shape[-1])  # (places, channels that are read, outputs)
        factors = _factors(high, np.abs(rows).max(axis=(0, 2)))
        layer.set_weights([kernel / factors, bias / factors])
        reader.set_weights([(rows * factors[:, None]).reshape(read_by.shape), reader_bias])
    return equalised


def _factors(largest_outputs: NDArray[Any], largest_weights: NDArray[Any]) -> NDArray[Any]:
    """Return factors with the geometric mean 1. A channel that is always 0 or never read has the factor 1."""
    is_used = (largest_outputs > 0) & (largest_weights > 0)
    factors = np.ones(len(largest_outputs))
    factors[is_used] = np.sqrt(largest_outputs[is_used] / largest_weights[is_used])
    if is_used.any():
        factors[is_used] /= np.exp(np.log(factors[is_used]).mean())
    return factors


def _merge_pixels(network: keras.Model, scale: float, offset: float) -> tuple[keras.Model, bool]:
    """Return a model from uint8 pixels to logits, and whether its pixels are merged.

    Merged pixels are those of a stride along a row. They become one pixel with as many times the channels. Runtimes
    multiply bytes four channels at a time, and take a slower way for three. The sums are the same. The first
    convolution takes over the normalisation and computes on bytes. Its padding, zeros after normalisation, is the
    nearest byte here. That misses half a grey level at most. Pixels are not merged where a network does not begin with
    a padding layer and a convolution.
    """
    skipped = keras.layers.InputLayer | keras.layers.Dropout
    layers = [layer for layer in network.layers if not isinstance(layer, skipped)]
    images = keras.Input(network.input_shape[1:], dtype="uint8")
    zero = _zero_byte(scale, offset)
    pixels = keras.ops.cast(images, "float32") - zero
    offset += zero * scale
    match [type(layer).__name__ for layer in layers[:2]]:
        case ["ZeroPadding2D", "Conv2D"] if layers[1].padding == "valid":
            is_merged = True
            padding, convolution, *layers = layers
            (top, bottom), (left, right) = padding.padding
            kernel, bias = (np.asarray(weight, np.float64) for weight in convolution.get_weights())
            (height, width, channels, filters), (row_stride, stride) = kernel.shape, convolution.strides
            side, columns = network.input_shape[1], -(-width // stride)  # of a kernel
            num_columns = (left + side + right - width) // stride + columns
            added = num_columns * stride - left - side
            if added < 0:  # the last pixels of a row are never read
                pixels, added = pixels[:, :, :added], 0
            x = keras.ops.pad(pixels, ((0, 0), (top, bottom), (left, added), (0, 0)))
            x = keras.ops.reshape(x, (-1, top + side + bottom, num_columns, stride * channels))
            merged = keras.layers.Conv2D(filters, (height, columns), (row_stride, 1), activation=convolution.activation)
            x = merged(x)
            bias += offset * kernel.sum(axis=(0, 1, 2))
            kernel = np.pad(kernel * scale, ((0, 0), (0, columns * stride - width), (0, 0), (0, 0)))
            merged.set_weights([kernel.reshape(height, columns, -1, filters), bias])
        case _:
            is_merged = False
            x = pixels * scale + offset
    for layer in layers:
        # As Keras exports Flatten, it asks for the shape.
        x = keras.ops.reshape(x, (-1, np.prod(x.shape[1:]))) if isinstance(layer, keras.layers.Flatten) else layer(x)
    return keras.Model(images, x), is_merged


def _zero_byte(scale: float, offset: float) -> int:
    """Return the pixel that the normalisation brings nearest to 0."""
    return int(np.clip(np.rint(-offset / scale), 0, 255))


def _keep_bytes(graph: onnx.GraphProto) -> None:
    """Remove the conversions from bytes before the padding and back to bytes after the merging."""
    quantise = next(node for node in graph.node if node.op_type == "QuantizeLinear")
    before = list(itertools.takewhile(lambda node: node.op_type != "QuantizeLinear", graph.node))
    numbers = [node for node in before if node.op_type in ("Cast", "Sub")]
    renamed = {node.output[0]: INPUT for node in numbers} | {quantise.output[0]: quantise.input[0]}
    for node in before:
        if node.op_type == "Pad":
            node.input[2:] = quantise.input[2:]  # the byte that stands for 0
    for node in graph.node:
        node.input[:] = [renamed.get(name, name) for name in node.input]
    for node in (*numbers, quantise):
        graph.node.remove(node)
    used = {name for node in graph.node for name in node.input}
    weights = [weight for weight in graph.initializer if weight.name in used]
    del graph.initializer[:], graph.value_info[:]  # these have the types of before
    graph.initializer.extend(weights)


class _Batches(CalibrationDataReader):  # type: ignore[misc]
    """Reader of the calibration images, in batches."""

    def __init__(self, images: Pixels) -> None:
        self._batches = (images[start : start + _BATCH] for start in range(0, len(images), _BATCH))

    def get_next(self) -> dict[str, Pixels] | None:
        """Return the next batch by the input's name."""
        return next(({INPUT: batch} for batch in self._batches), None)
