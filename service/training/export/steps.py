"""A trained network as a list of plain steps, in the axis order of ONNX: what `export_onnx` writes down.

Kernels leave Keras's order here, once; normalisation and temperature go into weights where that is exact.
"""

from dataclasses import dataclass, replace
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from service.errors import PublishError

Array = NDArray[Any]
Pads = tuple[int, int, int, int]
_NO_PADS: Pads = (0, 0, 0, 0)


@dataclass(frozen=True, eq=False)
class Convolution:
    """`kernel` (out, in, height, width); `pads` with zeros: top, left, bottom, right."""

    name: str
    kernel: Array
    bias: Array
    strides: tuple[int, int]
    pads: Pads
    relu: bool = False


@dataclass(frozen=True)
class Pool:
    """`kind` is ONNX's word: MaxPool or AveragePool."""

    name: str
    kind: str
    size: tuple[int, int]
    strides: tuple[int, int]


@dataclass(frozen=True)
class Flatten:
    """(N, C, H, W) -> (N, C * H * W)."""

    name: str


@dataclass(frozen=True, eq=False)
class Dense:
    """`kernel` (in, out); after `Flatten` its rows are in the order of (C, H, W)."""

    name: str
    kernel: Array
    bias: Array
    relu: bool = False


Step = Convolution | Pool | Flatten | Dense


@dataclass(frozen=True, eq=False)
class Steps:
    """(pixel + shift) * scale, then `steps`, then softmax. `scale` is 1 where it could go into the first kernel."""

    image_size: int
    shift: float
    scale: float
    steps: tuple[Step, ...]


def read_network(network: keras.Model, *, scale: float, offset: float, temperature: float) -> Steps:
    """The layers of a folded network that returns logits, in the order of the data.

    Args:
        network: keras.Model, float32 (N, image_size, image_size, 3) -> logits (N, num_classes); a chain of layers.
        scale: the network sees pixel * scale + offset.
        offset: see `scale`.
        temperature: logits are divided by it before the softmax.

    Raises:
        PublishError: a layer is none of those that the networks of this project are made of.
    """
    steps: list[Step] = []
    pads = _NO_PADS
    for layer in network.layers:
        kind = type(layer).__name__
        match kind:
            case "InputLayer" | "Dropout":
                continue
            case "ZeroPadding2D":
                (top, bottom), (left, right) = layer.padding
                pads = (top, left, bottom, right)
                continue
            case "Conv2D":
                steps.append(_convolution(layer, pads))
                pads = _NO_PADS
            case "MaxPooling2D" | "AveragePooling2D" if layer.padding == "valid":
                steps.append(Pool(layer.name, kind.replace("Pooling2D", "Pool"), layer.pool_size, layer.strides))
            case "Flatten":
                feature_maps = layer.input.shape[1:]
                steps.append(Flatten(layer.name))
            case "Dense":
                kernel, bias = _weights(layer)
                if isinstance(steps[-1], Flatten):  # its rows come in the order of (H, W, C)
                    kernel = kernel.reshape(*feature_maps, -1).transpose(2, 0, 1, 3).reshape(kernel.shape)
                steps.append(Dense(layer.name, kernel, bias))
            case "ReLU":
                steps[-1] = _rectified(steps[-1])
            case _:
                raise PublishError(f"layer {layer.name} is a {kind}, which the light engine's network cannot have")
        if kind in ("Conv2D", "Dense") and layer.activation.__name__ == "relu":
            steps[-1] = _rectified(steps[-1])
    last = steps[-1]
    if not isinstance(last, Dense) or last.relu:
        raise PublishError("the network does not end with a dense layer that returns logits")
    steps[-1] = replace(last, kernel=last.kernel / temperature, bias=last.bias / temperature)
    if isinstance(steps[0], Convolution):
        # Zeros are padded after the normalisation: so the shift must come before, and the scale alone can go in here.
        steps[0] = replace(steps[0], kernel=steps[0].kernel * scale)
        return Steps(network.input_shape[1], offset / scale, 1.0, tuple(steps))
    return Steps(network.input_shape[1], offset / scale, scale, tuple(steps))


def _convolution(layer: keras.layers.Layer, pads: Pads) -> Convolution:
    """`pads`: of a ZeroPadding2D before it."""
    kernel, bias = _weights(layer)
    if layer.padding == "same":
        sides = [
            max((-(-size // stride) - 1) * stride + width - size, 0)
            for size, stride, width in zip(layer.input.shape[1:3], layer.strides, layer.kernel_size, strict=True)
        ]
        before, after = [side // 2 for side in sides], [side - side // 2 for side in sides]
        pads = (pads[0] + before[0], pads[1] + before[1], pads[2] + after[0], pads[3] + after[1])
    return Convolution(layer.name, kernel.transpose(3, 2, 0, 1), bias, layer.strides, pads)


def _weights(layer: keras.layers.Layer) -> tuple[Array, Array]:
    """Kernel and bias in float64: they are rounded once, when they are written."""
    kernel, *bias = (np.asarray(weight, np.float64) for weight in layer.get_weights())
    return kernel, bias[0] if bias else np.zeros(kernel.shape[-1])


def _rectified(step: Step) -> Step:
    if not isinstance(step, Convolution | Dense):
        raise PublishError(f"a ReLU follows {step.name}: it must follow a convolution or a dense layer")
    return replace(step, relu=True)
