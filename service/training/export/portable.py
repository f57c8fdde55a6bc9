"""One file for other programs: a network that takes an image of any size, as ONNX or LiteRT.

The resize is two products with matrices, because neither format has Pillow's filter. Its pixels differ from those of
`imaging.resize` by one at most.
"""

import json
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
import onnxruntime
import tensorflow as tf
import tf2onnx
from numpy.typing import NDArray

from service.errors import ExportError, InvalidVersion
from service.files import write_whole
from service.imaging.limits import ResizeRule
from service.imaging.pixels import Pixels
from service.store.layout import INPUT, OUTPUT, SCORES_SIGNATURE, SIGNATURE
from service.store.metadata import Metadata
from service.store.verify import VerifiedVersion

PortableForm = Literal["onnx", "litert"]
"""Formats of the file."""

IMAGE = "image"
"""Input of the file, uint8 (height, width, 3)."""

_OPSET = 17
_MAX_DIFFERENT = 1  # photographs that may have another label than with the SavedModel

Run = Callable[[Pixels], NDArray[Any]]


@dataclass(frozen=True)
class Comparison:
    """Labels of the file and of the SavedModel, and the largest difference of a probability."""

    num_photographs: int
    num_different: int
    difference_max: float


def export_portable(
    verified: VerifiedVersion, target: Path, form: PortableForm, photographs: Iterable[tuple[Pixels, Pixels]]
) -> Comparison:
    """Write a version's network into one file, after comparing it with the SavedModel.

    The file takes `image`, uint8 (height, width, 3), RGB in sRGB, upright, any size. It returns `probabilities`,
    float32 (num_classes,), and for a version of format 2 `energy` and perhaps `distance`, float32 ().

    Args:
        verified: The version. Its SavedModel is loaded and run.
        target: File to write. An existing one is replaced.
        form: "onnx", which also holds `class_names` as JSON in its metadata, or "litert".
        photographs: Pairs of a whole image, uint8 (height, width, 3), and the square that `resize` makes of it.

    Raises:
        ExportError: More than one photograph has another label, there is none, or the file cannot be written.
        InvalidVersion: The SavedModel cannot be loaded, or its files changed meanwhile.
    """
    with tf.device("/cpu:0"):
        loaded, scores = _load(verified)
        function = _on_whole_images(scores, verified.metadata)
        match form:
            case "onnx":
                content, run = _to_onnx(function, verified.metadata)
            case "litert":
                content, run = _to_litert(function, loaded)
        compared = compare(
            run, lambda square: scores(**{INPUT: tf.constant(square[None])})[OUTPUT].numpy()[0], photographs
        )
    try:
        write_whole(target, content)
    except OSError as error:
        raise ExportError(
            f"{target} cannot be written ({error.strerror or error}). Make room, or name another file with --output."
        ) from error
    return compared


def compare(run: Run, reference: Run, photographs: Iterable[tuple[Pixels, Pixels]]) -> Comparison:
    """Compare the labels of whole images with those of their squares. Raises `ExportError` if too many differ.

    Both functions return probabilities, float32 (num_classes,).
    """
    num_photographs, num_different, largest = 0, 0, 0.0
    for whole, square in photographs:
        found, expected = run(whole), reference(square)
        num_photographs += 1
        num_different += int(found.argmax() != expected.argmax())
        difference = float(np.abs(found - expected).max())
        if not difference <= 1:  # put this way round, NaN is wrong too
            raise ExportError(
                "The exported file answers with no probabilities. Nothing was written. Report it as a bug."
            )
        largest = max(largest, difference)
    if not num_photographs:
        raise ExportError("There is no image to check the exported file with. Name a folder that holds some.")
    if num_different > _MAX_DIFFERENT:
        raise ExportError(
            f"The exported file names another class than the SavedModel for {num_different} of {num_photographs} "
            "images. At most one is allowed. Nothing was written. Report it as a bug, with the version's metadata."
        )
    return Comparison(num_photographs, num_different, largest)


def _load(verified: VerifiedVersion) -> tuple[Any, Any]:
    """Return the SavedModel, which holds the weights, and its signature with all outputs."""
    try:
        loaded = tf.saved_model.load(str(verified.folder))
        signatures = loaded.signatures
        scores = signatures[SCORES_SIGNATURE if SCORES_SIGNATURE in signatures else SIGNATURE]
    except Exception as error:  # TensorFlow raises nearly anything over odd files
        verified.check_unchanged()
        raise InvalidVersion(
            f"The SavedModel of version {verified.folder.name} cannot be loaded. Export another version."
        ) from error
    verified.check_unchanged()
    return loaded, scores


def _on_whole_images(scores: Any, metadata: Metadata) -> Any:
    """Return a function of `image` that resizes it and gives it to a signature of squares."""
    rule = ResizeRule(metadata.preprocessing.image_size, metadata.preprocessing.shorter_side)

    def run(image: Any) -> Mapping[str, Any]:
        square = tf.cast(resize_any(image, rule), tf.uint8)
        return {name: tensor[0] for name, tensor in scores(**{INPUT: square[None]}).items()}

    return tf.function(run, input_signature=[tf.TensorSpec((None, None, 3), tf.uint8, IMAGE)])


def resize_any(image: Any, rule: ResizeRule) -> Any:
    """Cut the centre square as `imaging.resize` does.

    Args:
        image: Tensor, uint8 (height, width, 3), of any size.
        rule: Sizes in pixels.

    Returns:
        Tensor, float32 (image_size, image_size, 3), whole numbers from 0 to 255.

    Source: Pillow, src/libImaging/Resample.c. Rows come first. Each of the two passes rounds.
    """
    size = rule.image_size
    height, width = tf.unstack(tf.shape(image)[:2])
    side = tf.cast(tf.minimum(height, width), tf.float32) * (size / rule.shorter_side)
    rows = tf.reshape(tf.transpose(tf.cast(image, tf.float32), (0, 2, 1)), tf.stack([3 * height, width]))
    rows = _round(tf.matmul(rows, _weights(width, side, size), transpose_b=True))  # (3 * height, size)
    columns = tf.reshape(rows, tf.stack([height, 3 * size]))
    columns = _round(tf.matmul(_weights(height, side, size), columns))  # (size, 3 * size)
    return tf.transpose(tf.reshape(columns, (size, 3, size)), (0, 2, 1))


def _weights(num_pixels: Any, side: Any, size: int) -> Any:
    """Return what each pixel of a line gives to each of the `size` pixels of its middle `side`: (size, num_pixels).

    It is a triangle, which is as wide as a pixel of the result, or as one of the line where that is larger.
    """
    scale = side / size
    centres = (tf.cast(num_pixels, tf.float32) - side) / 2 + (tf.range(size, dtype=tf.float32) + 0.5) * scale
    places = tf.cast(tf.range(num_pixels), tf.float32) + 0.5
    weights = tf.nn.relu(1 - tf.abs(places[None, :] - centres[:, None]) / tf.maximum(scale, 1))
    return weights / tf.reduce_sum(weights, axis=1, keepdims=True)


def _round(pixels: Any) -> Any:
    return tf.floor(pixels + 0.5)  # Pillow rounds up what lies half-way


def _to_onnx(function: Any, metadata: Metadata) -> tuple[bytes, Run]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # tf2onnx asks NumPy for names that are to come
        model, _ = tf2onnx.convert.from_function(function, function.input_signature, opset=_OPSET)
    height, width, _ = model.graph.input[0].type.tensor_type.shape.dim
    height.dim_param, width.dim_param = "height", "width"
    onnx.helper.set_model_props(model, {"class_names": json.dumps(metadata.class_names, ensure_ascii=False)})
    onnx.checker.check_model(model, full_check=True)
    content = model.SerializeToString()
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    return content, lambda whole: session.run([OUTPUT], {IMAGE: whole})[0]


def _to_litert(function: Any, loaded: Any) -> tuple[bytes, Run]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TensorFlow's own interpreter is to move into another package
        converter = tf.lite.TFLiteConverter.from_concrete_functions([function.get_concrete_function()], loaded)
        content: bytes = converter.convert()
        runner = tf.lite.Interpreter(model_content=content).get_signature_runner()
    return content, lambda whole: runner(**{IMAGE: whole})[OUTPUT]
