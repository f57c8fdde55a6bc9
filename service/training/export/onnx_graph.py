"""A network's steps as an ONNX graph for the light CPU engine: pixels in, probabilities out, float32 or int8.

Both graphs take what the SavedModel takes: `images`, uint8 (N, image_size, image_size, 3), RGB; and return
`probabilities`, float32 (N, num_classes). Inside, the axes are NCHW: one transposition of the bytes at the start, and
none at the end, since the rows of the first dense layer are in the order of NCHW already.

In the int8 graph, weights are int8 with a scale per filter or unit, activations uint8 with a scale per tensor, from
their extremes on training photographs; the pixels are uint8 from the start. The last layer computes in float32.
Runtimes multiply bytes four channels at a time, and take a slower way for three: so where the first convolution makes
strides, the pixels of one stride along a row are taken for one with as many times the channels, the same sums.

Source: Jacob et al. (2018), "Quantization and Training of Neural Networks", section 2, for the arithmetic.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from service.training.export.steps import Array, Convolution, Dense, Flatten, Pool, Step, Steps

INPUT_NAME, OUTPUT_NAME = "images", "probabilities"
_OPSET, _IR_VERSION = 17, 8  # nothing newer is needed, and any runtime of the last years reads them


@dataclass(frozen=True)
class Quantisation:
    """A byte stands for (byte - zero_point) * scale."""

    scale: float
    zero_point: int

    @classmethod
    def of_range(cls, low: float, high: float) -> "Quantisation":
        """All 256 bytes over the range, 0 among them exactly: zeros are padded, and ReLU gives many."""
        low, high = min(low, 0.0), max(high, 0.0)
        scale = (high - low) / 255 or 1.0
        return cls(scale, round(-low / scale))


def float32_model(network: Steps, *, show: Sequence[str] = ()) -> onnx.ModelProto:
    """The network in float32. `show`: names of steps whose outputs the graph gives out, too."""
    writer = _Writer(np.float32)
    tensor = writer.normalise(network, writer.transpose())
    for step in network.steps:
        tensor = writer.step(step, tensor)
    return writer.finish(network, tensor, show)


def int8_model(
    network: Steps, ranges: Mapping[str, tuple[float, float]], *, with_dense_layers: bool = True
) -> onnx.ModelProto:
    """The network with its convolutions, and its hidden dense layers if they shall, in int8.

    Args:
        network: as `read_network` gives it.
        ranges: name of a step -> the extremes of its output, for all steps but the last.
        with_dense_layers: False leaves them in float32; in the file their weights then have 16 bits, which halves it
            and which the engine widens once, while it loads. The last one is left so always.
    """
    writer = _Writer(np.float16)
    first, *others = network.steps
    bytes_are = None
    if isinstance(first, Convolution):
        # The pixels are bytes already. Their zero point is a whole number: what it misses of the shift goes into the
        # bias, which is exact but where zeros are padded; there it is half a grey level at most.
        bytes_are = Quantisation(network.scale, int(np.clip(np.rint(-network.shift), 0, 255)))
        missing = bytes_are.zero_point + network.shift
        first = replace(first, bias=first.bias + missing * first.kernel.sum(axis=(1, 2, 3)))
        if first.strides[1] > 1:
            first, tensor = writer.merge_pixels(first, network.image_size, bytes_are.zero_point)
        else:
            tensor = writer.transpose()
    else:
        tensor = writer.normalise(network, writer.transpose())
    previous = ""
    for step in (first, *others):
        is_hidden_dense = isinstance(step, Dense) and step.name != network.steps[-1].name
        if isinstance(step, Convolution) or (isinstance(step, Dense) and is_hidden_dense and with_dense_layers):
            if bytes_are is None:
                bytes_are = Quantisation.of_range(*ranges[previous])
                tensor = writer.quantise(tensor, bytes_are)
            output = Quantisation.of_range(*ranges[step.name])
            tensor, bytes_are = writer.int8_step(step, tensor, bytes_are, output), output
        else:
            if bytes_are is not None and not _takes_bytes(step):
                tensor, bytes_are = writer.dequantise(tensor, bytes_are), None
            tensor = writer.step(step, tensor)
        previous = step.name
    return writer.finish(network, tensor)


def _takes_bytes(step: Step) -> bool:
    """Whether the step does to bytes what it does to the numbers they stand for: the largest stays the largest."""
    return isinstance(step, Flatten) or (isinstance(step, Pool) and step.kind == "MaxPool")


class _Writer:
    """Collects nodes and weights; each method returns the name of the tensor that it has added."""

    def __init__(self, dense_type: type[np.floating[Any]]) -> None:
        self._dense_type = dense_type
        self._nodes: list[onnx.NodeProto] = []
        self._weights: dict[str, onnx.TensorProto] = {}

    def transpose(self, images: str = INPUT_NAME) -> str:
        return self._add("Transpose", "transposed", images, perm=(0, 3, 1, 2))

    def merge_pixels(self, first: Convolution, width: int, zero_point: int) -> tuple[Convolution, str]:
        """The first convolution as one over merged pixels, and those: bytes, (N, stride * channels, height, columns).

        Args:
            first: with a stride along the row, and kernel (out, in, height, width).
            width: of the images, in pixels.
            zero_point: the byte that stands for 0, with which rows are padded.
        """
        num_filters, channels, kernel_height, kernel_width = first.kernel.shape
        row_stride, stride = first.strides
        top, left, bottom, right = first.pads
        columns_per_kernel = -(-kernel_width // stride)
        num_columns = (left + width + right - kernel_width) // stride + columns_per_kernel
        added = num_columns * stride - left - width  # to the right of each row; less than nothing cuts it off
        pads = np.array((0, 0, left, 0, 0, 0, added, 0), np.int64)
        zero = self._weight("rows/zero", np.uint8(zero_point))
        rows = self._add("Pad", "rows", INPUT_NAME, self._weight("rows/pads", pads), zero)
        shape = np.array((0, 0, num_columns, stride * channels), np.int64)  # 0: as it is
        merged = self._add("Reshape", "merged", rows, self._weight("merged/shape", shape))
        widened = np.pad(first.kernel, ((0, 0), (0, 0), (0, 0), (0, columns_per_kernel * stride - kernel_width)))
        kernel = widened.reshape(num_filters, channels, kernel_height, columns_per_kernel, stride)
        kernel = kernel.transpose(0, 4, 1, 2, 3).reshape(num_filters, -1, kernel_height, columns_per_kernel)
        first = replace(first, kernel=kernel, strides=(row_stride, 1), pads=(top, 0, bottom, 0))
        return first, self.transpose(merged)

    def normalise(self, network: Steps, tensor: str) -> str:
        tensor = self._add("Cast", "pixels", tensor, to=TensorProto.FLOAT)
        if network.shift:
            tensor = self._add("Add", "shifted", tensor, self._weight("shift", np.float32(network.shift)))
        if network.scale != 1.0:
            tensor = self._add("Mul", "scaled", tensor, self._weight("scale", np.float32(network.scale)))
        return tensor

    def step(self, step: Step, tensor: str) -> str:
        """The step in float32; a MaxPool takes bytes as well."""
        relu = False
        match step:
            case Convolution():
                weights = (self._weight(f"{step.name}/kernel", step.kernel.astype(np.float32)), self._bias(step))
                name = f"{step.name}/sums" if step.relu else step.name
                tensor = self._add("Conv", name, tensor, *weights, strides=step.strides, pads=step.pads)
                relu = step.relu
            case Dense():
                kernel = self._weight(f"{step.name}/kernel", step.kernel.astype(self._dense_type))
                if self._dense_type is not np.float32:
                    kernel = self._add("Cast", f"{step.name}/wide_kernel", kernel, to=TensorProto.FLOAT)
                name = f"{step.name}/sums" if step.relu else step.name
                tensor = self._add("Gemm", name, tensor, kernel, self._bias(step))
                relu = step.relu
            case Pool():
                tensor = self._add(step.kind, step.name, tensor, kernel_shape=step.size, strides=step.strides)
            case Flatten():
                tensor = self._add("Flatten", step.name, tensor)
        return self._add("Relu", step.name, tensor) if relu else tensor

    def int8_step(self, step: Convolution | Dense, tensor: str, read: Quantisation, write: Quantisation) -> str:
        """In the form that runtimes recognise: dequantise, compute, quantise; bytes from 0 are the ReLU, too."""
        axis = 0 if isinstance(step, Convolution) else 1  # of the outputs, in the kernel
        others = tuple(other for other in range(step.kernel.ndim) if other != axis)
        largest = np.abs(step.kernel).max(axis=others, keepdims=True)
        scales = np.where(largest > 0, largest, 1.0) / 127
        kernel = self._int8_weight(f"{step.name}/kernel", np.rint(step.kernel / scales).astype(np.int8), scales, axis)
        scales = scales.ravel() * read.scale
        bias = self._int8_weight(f"{step.name}/bias", np.rint(step.bias / scales).astype(np.int32), scales, 0)
        operands = (self.dequantise(tensor, read), kernel, bias)
        if isinstance(step, Convolution):
            sums = self._add("Conv", f"{step.name}/sums", *operands, strides=step.strides, pads=step.pads)
        else:
            sums = self._add("Gemm", f"{step.name}/sums", *operands)
        return self.quantise(sums, write, name=step.name)

    def quantise(self, tensor: str, quantisation: Quantisation, name: str = "") -> str:
        return self._add("QuantizeLinear", name or f"{tensor}/bytes", tensor, *self._numbers(tensor, quantisation))

    def dequantise(self, tensor: str, quantisation: Quantisation) -> str:
        return self._add("DequantizeLinear", f"{tensor}/numbers", tensor, *self._numbers(tensor, quantisation))

    def finish(self, network: Steps, logits: str, show: Sequence[str] = ()) -> onnx.ModelProto:
        self._add("Softmax", OUTPUT_NAME, logits, axis=1)
        side, num_classes = network.image_size, len(network.steps[-1].bias)  # type: ignore[union-attr]
        images = helper.make_tensor_value_info(INPUT_NAME, TensorProto.UINT8, ("N", side, side, 3))
        probabilities = helper.make_tensor_value_info(OUTPUT_NAME, TensorProto.FLOAT, ("N", num_classes))
        graph = helper.make_graph(self._nodes, "network", [images], [probabilities], list(self._weights.values()))
        model = helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=_IR_VERSION, producer_name="flowers"
        )
        onnx.checker.check_model(model, full_check=True)
        model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in show)
        return model

    def _numbers(self, tensor: str, quantisation: Quantisation) -> tuple[str, str]:
        scale = self._weight(f"{tensor}/scale", np.float32(quantisation.scale))
        return scale, self._weight(f"{tensor}/zero_point", np.uint8(quantisation.zero_point))

    def _int8_weight(self, name: str, value: Array, scales: Array, axis: int) -> str:
        return self._add(
            "DequantizeLinear",
            f"{name}/numbers",
            self._weight(name, value),
            self._weight(f"{name}/scales", scales.ravel().astype(np.float32)),
            self._weight(f"{name}/zero_points", np.zeros(scales.size, value.dtype)),
            axis=axis,
        )

    def _bias(self, step: Convolution | Dense) -> str:
        return self._weight(f"{step.name}/bias", step.bias.astype(np.float32))

    def _weight(self, name: str, value: Array | np.generic) -> str:
        self._weights[name] = numpy_helper.from_array(np.ascontiguousarray(value).reshape(np.shape(value)), name)
        return name

    def _add(self, operation: str, output: str, *inputs: str, **attributes: Any) -> str:
        self._nodes.append(helper.make_node(operation, inputs, [output], name=output, **attributes))
        return output
