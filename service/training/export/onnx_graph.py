"""Keras networks as ONNX graphs, by Keras' own export."""

import tempfile
import warnings
from pathlib import Path

import keras
import onnx
import tf2onnx  # noqa: F401 - Keras imports it late. Without it no training may begin
from onnxruntime.quantization import quant_pre_process

from service.store.layout import INPUT
from service.training.trained_network import score_outputs

_OPSET = 17  # nothing newer is needed, and any runtime of the last years reads it


def float32_model(network: keras.Model, *, scale: float, offset: float, temperature: float) -> onnx.ModelProto:
    """Export a network with its normalisation, its temperature, the softmax and the energy.

    Arguments are as of `export_saved_model`. The graph maps `images`, uint8 (N, image_size, image_size, 3), to the
    scores of `score_outputs`.
    """
    images = keras.Input(network.input_shape[1:], dtype="uint8")
    outputs = network(keras.ops.cast(images, "float32") * scale + offset)
    return export_graph(keras.Model(images, score_outputs(outputs, temperature)))


def export_graph(model: keras.Model) -> onnx.ModelProto:
    """Export a model from uint8 images to named scores, with its constants folded and its dense layers as `Gemm`."""
    signature = [keras.InputSpec("uint8", model.input_shape, name=INPUT)]
    with tempfile.TemporaryDirectory(prefix="flowers-export-") as scratch:
        exported, folded = Path(scratch, "exported.onnx"), Path(scratch, "folded.onnx")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # Keras asks NumPy for a name that is to come
            model.export(exported, format="onnx", verbose=False, input_signature=signature, opset_version=_OPSET)
        quant_pre_process(exported, folded, skip_symbolic_shape=True)
        exported_model = onnx.load(folded)
    graph = exported_model.graph
    # TensorFlow lists the tensors of a dict by their names, and gives them others.
    named = {tensor.name: name for tensor, name in zip(graph.output, sorted(model.output), strict=True)}
    for node in graph.node:
        node.input[:] = [named.get(name, name) for name in node.input]
        node.output[:] = [named.get(name, name) for name in node.output]
    for tensor in graph.output:
        tensor.name = named[tensor.name]
    return exported_model
