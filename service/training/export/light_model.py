"""Networks for onnxruntime, which are compared with the SavedModel and then kept or refused."""

from pathlib import Path

import keras
import numpy as np
import onnx
from numpy.typing import NDArray

from service.engines.engine import EngineInfo, Probabilities
from service.engines.onnx_runtime import OnnxRuntimeEngine
from service.imaging.pixels import Pixels
from service.store.layout import CPU_MODEL_FILES, Precision
from service.store.metadata import CpuModel
from service.training.export.int8 import equalise, int8_model
from service.training.export.onnx_graph import float32_model

NUM_CALIBRATION = 512
"""Number of training photographs that show the range of every activation."""

_FLOAT32_DIFFERENCE = 1e-4
_INT8_SAME_TOP1, _INT8_ACCURACY_CHANGE, _INT8_DIFFERENCE_P99 = 0.995, 0.003, 0.03


def export_cpu_models(
    network: keras.Model,
    folder: Path,
    *,
    scale: float,
    offset: float,
    temperature: float,
    calibration: Pixels,
    images: Pixels,
    class_indices: NDArray[np.int64],
    expected: Probabilities,
) -> list[CpuModel]:
    """Write `assets.extra/cpu_model.onnx` and `cpu_model.int8.onnx` into a version's folder, each if it is good.

    The first int8 network has its hidden dense layers in int8, too. If it is refused, a second one has not.

    Args:
        network: Model from float32 (N, image_size, image_size, 3) to logits (N, num_classes), without batch norm.
        folder: Folder of the version. It need not be complete.
        scale, offset, temperature: As of `export_saved_model`.
        calibration: uint8 (N, image_size, image_size, 3), photographs of the training part.
        images: uint8 (M, image_size, image_size, 3), held-out photographs.
        class_indices: int64 (M,), their true classes.
        expected: float32 (M, num_classes), the SavedModel's answers to them.

    Returns:
        The figures of each network for the metadata. Those of a refused one say why.
    """
    numbers = {"scale": scale, "offset": offset, "temperature": temperature}

    def export(model: onnx.ModelProto, precision: Precision, quantised: str = "") -> CpuModel:
        path = folder / CPU_MODEL_FILES[precision]
        path.parent.mkdir(exist_ok=True)
        content = model.SerializeToString()
        path.write_bytes(content)
        choice = EngineInfo("onnxruntime", "cpu", precision, "the check of the export")
        engine = OnnxRuntimeEngine(content, choice, version=folder.name)
        compared = compare(precision, engine.run(images).probabilities, expected, class_indices, quantised=quantised)
        engine.close()
        if compared.refused:
            path.unlink()
        return compared

    models = [export(float32_model(network, **numbers), "float32")]
    equalised = equalise(network, calibration, scale=scale, offset=offset)
    for with_dense_layers, quantised in ((True, "convolutions and hidden dense layers"), (False, "convolutions")):
        model = int8_model(equalised, calibration, **numbers, with_dense_layers=with_dense_layers)
        models.append(export(model, "int8", quantised))
        if not models[-1].refused:
            break
    return models


def compare(
    precision: Precision, found: Probabilities, expected: Probabilities, class_indices: NDArray[np.int64], *,
    quantised: str = "",
) -> CpuModel:  # fmt: skip
    """Compare a network's answers, float32 (N, num_classes), with the SavedModel's. Say why they are refused, if so."""
    differences = np.abs(found - expected).max(axis=1)
    facts = {
        "num_photographs": len(found),
        "same_top1": float(np.mean(found.argmax(axis=1) == expected.argmax(axis=1))),
        "accuracy": float(np.mean(found.argmax(axis=1) == class_indices)),
        "accuracy_of_saved_model": float(np.mean(expected.argmax(axis=1) == class_indices)),
        "difference_p99": float(np.quantile(differences, 0.99)),
        "difference_max": float(differences.max()),
    }
    model = CpuModel(precision=precision, quantised=quantised, refused=None, **facts)
    return model.model_copy(update={"refused": "; ".join(_complaints(model)) or None})


def _complaints(model: CpuModel) -> list[str]:
    if model.precision == "float32":
        if model.difference_max <= _FLOAT32_DIFFERENCE:
            return []
        return [f"a probability differs by {model.difference_max:.2g}, at most {_FLOAT32_DIFFERENCE:.0e} is allowed"]
    complaints = []
    if model.same_top1 < _INT8_SAME_TOP1:
        complaints.append(
            f"the best class is the same for {model.same_top1:.1%} of the photographs, at least "
            f"{_INT8_SAME_TOP1:.1%} are wanted"
        )
    if abs(change := model.accuracy - model.accuracy_of_saved_model) > _INT8_ACCURACY_CHANGE + 1e-9:
        complaints.append(
            f"accuracy changes by {100 * change:+.2f} points, at most {100 * _INT8_ACCURACY_CHANGE} are allowed"
        )
    if model.difference_p99 > _INT8_DIFFERENCE_P99:
        complaints.append(
            f"the 99th percentile of the largest differences is {model.difference_p99:.3f}, at most "
            f"{_INT8_DIFFERENCE_P99} is allowed"
        )
    return complaints
