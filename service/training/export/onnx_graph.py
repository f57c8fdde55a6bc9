"""Keras networks as ONNX graphs, by Keras' own export."""

import tempfile
import warnings
from pathlib import Path

import keras
import onnx
import tf2onnx  # noqa: F401 - Keras imports it late. Without it no training may begin
from onnxruntime.quantization import quant_pre_process

from service.store.layout import INPUT, OUTPUT

_OPSET = 17  # nothing newer is needed, and any runtime of the last years reads it


def float32_model(network: keras.Model, *, scale: float, offset: float, temperature: float) -> onnx.ModelProto:
    """Export a network with its normalisation, its temperature and the softmax.

    Arguments are as of `export_saved_model`. The graph maps `images`, uint8 (N, image_size, image_size, 3), to
    `probabilities`, float32 (N, num_classes).
    """
    images = keras.Input(network.input_shape[1:], dtype="uint8")
    logits = network(keras.ops.cast(images, "float32") * scale + offset)
    return export_graph(keras.Model(images, keras.ops.softmax(logits / temperature)))


def export_graph(model: keras.Model) -> onnx.ModelProto:
    """Export a model from uint8 images to probabilities, with its constants folded and its dense layers as `Gemm`."""
    signature = [keras.InputSpec("uint8", model.input_shape, name=INPUT)]
    with tempfile.TemporaryDirectory(prefix="flowers-export-") as scratch:
        exported, folded = Path(scratch, "exported.onnx"), Path(scratch, "folded.onnx")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # Keras asks NumPy for a name that is to come
            model.export(exported, format="onnx", verbose=False, input_signature=signature, opset_version=_OPSET)
        quant_pre_process(exported, folded, skip_symbolic_shape=True)
        exported_model = onnx.load(folded)
    graph = exported_model.graph
    for node in graph.node:
        node.output[:] = [OUTPUT if name == graph.output[0].name else name for name in node.output]
    graph.output[0].name = OUTPUT
    return exported_model
