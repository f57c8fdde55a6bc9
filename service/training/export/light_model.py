"""Networks for onnxruntime, which are compared with the SavedModel and then kept or refused."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
import onnx
from numpy.typing import NDArray

from service.engines.engine import Engine, EngineInfo, Scores, join_scores
from service.engines.onnx_runtime import OnnxRuntimeEngine
from service.imaging.pixels import Pixels
from service.store.layout import CPU_MODEL_FILES, DISTANCE, ENERGY, Precision
from service.store.metadata import CpuModel
from service.training.export.int8 import equalise, int8_model, int8_pretrained_model
from service.training.export.onnx_graph import float32_model

NUM_CALIBRATION = 512
"""Number of training photographs that show the range of every activation."""

_PIECE = 64  # images
_FLOAT32_DIFFERENCE, _FLOAT32_COLUMN_DIFFERENCE = 1e-4, 1e-3  # of a probability, of an energy or a distance
_INT8_COLUMN_DIFFERENCE_P99 = 0.5  # of an energy or a distance, in standard deviations over the photographs


@dataclass(frozen=True)
class Int8Limits:
    """Limits of an int8 network's differences from the SavedModel. The class of one photograph may always differ."""

    same_top1: float
    accuracy_change: float
    difference_p99: float


# An EfficientNet-Lite has three times the layers, and few of its channels are alike in size. 800 photographs of
# flower_photos: 98.8 % have the same class, and as many are right (`benchmarks/own_classes.py`).
_ALEXNET, _PRETRAINED = Int8Limits(0.995, 0.003, 0.03), Int8Limits(0.97, 0.01, 0.15)


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
    expected: Scores,
    is_pretrained: bool = False,
) -> list[CpuModel]:
    """Write `assets.extra/cpu_model.onnx` and `cpu_model.int8.onnx` into a version's folder, each if it is good.

    The first int8 network has its hidden dense layers in int8, too. If it is refused, a second one has not.

    Args:
        network: Model from float32 (N, image_size, image_size, 3) to outputs as of `name_outputs`, without batch norm.
        folder: Folder of the version. It need not be complete.
        scale, offset, temperature: As of `export_saved_model`.
        calibration: uint8 (N, image_size, image_size, 3), photographs of the training part.
        images: uint8 (M, image_size, image_size, 3), held-out photographs.
        class_indices: int64 (M,), their true classes.
        expected: The SavedModel's scores of them, M rows.
        is_pretrained: Whether the network is an EfficientNet-Lite. It has other limits, and one int8 network.

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
        compared = compare(
            precision, score_in_pieces(engine, images), expected, class_indices, quantised=quantised,
            limits=_PRETRAINED if is_pretrained else _ALEXNET,
        )  # fmt: skip
        engine.close()
        if compared.refused:
            path.unlink()
        return compared

    models = [export(float32_model(network, **numbers), "float32")]
    if is_pretrained:
        return [*models, export(int8_pretrained_model(network, calibration, **numbers), "int8", "most convolutions")]
    equalised = equalise(network, calibration, scale=scale, offset=offset)
    for with_dense_layers, quantised in ((True, "convolutions and hidden dense layers"), (False, "convolutions")):
        model = int8_model(equalised, calibration, **numbers, with_dense_layers=with_dense_layers)
        models.append(export(model, "int8", quantised))
        if not models[-1].refused:
            break
    return models


def score_in_pieces(engine: Engine, images: Pixels) -> Scores:
    """Score images, uint8 (N, size, size, 3), a few at a time. The feature maps of all would take gigabytes."""
    starts = range(0, len(images), _PIECE)
    return join_scores([engine.run(images[start : start + _PIECE]) for start in starts])


def compare(
    precision: Precision, found: Scores, expected: Scores, class_indices: NDArray[np.int64], *,
    quantised: str = "", limits: Int8Limits | None = None,
) -> CpuModel:  # fmt: skip
    """Compare a network's scores of N photographs with the SavedModel's. Say why they are refused, if so."""
    differences = np.abs(found.probabilities - expected.probabilities).max(axis=1)
    top1, expected_top1 = (scores.probabilities.argmax(axis=1) for scores in (found, expected))
    facts = {
        "num_photographs": len(top1),
        "same_top1": float(np.mean(top1 == expected_top1)),
        "accuracy": float(np.mean(top1 == class_indices)),
        "accuracy_of_saved_model": float(np.mean(expected_top1 == class_indices)),
        "difference_p99": float(np.quantile(differences, 0.99)),
        "difference_max": float(differences.max()),
    }
    model = CpuModel(precision=precision, quantised=quantised, refused=None, **facts)
    complaints = [*_complaints(model, limits or _ALEXNET), *_column_complaints(precision, found, expected)]
    return model.model_copy(update={"refused": "; ".join(complaints) or None})


def _column_complaints(precision: Precision, found: Scores, expected: Scores) -> Iterator[str]:
    columns = ((ENERGY, found.energy, expected.energy), (DISTANCE, found.distance, expected.distance))
    for name, ours, reference in columns:
        if ours is None or reference is None:
            if ours is not reference:
                yield f"the {name} is missing in one of the two"
            continue
        differences = np.abs(ours - reference)
        if precision == "float32":
            if not (largest := (differences / np.maximum(1, np.abs(reference))).max()) <= _FLOAT32_COLUMN_DIFFERENCE:
                yield f"the {name} differs by {largest:.2g}, at most {_FLOAT32_COLUMN_DIFFERENCE:.0e} is allowed"
        elif not np.quantile(differences, 0.99) <= (most := _INT8_COLUMN_DIFFERENCE_P99 * reference.std()):
            yield (
                f"the 99th percentile of differences in the {name} is {np.quantile(differences, 0.99):.2g}, at most "
                f"{most:.2g} is allowed"
            )


def _complaints(model: CpuModel, limits: Int8Limits) -> list[str]:
    if model.precision == "float32":
        if model.difference_max <= _FLOAT32_DIFFERENCE:
            return []
        return [f"a probability differs by {model.difference_max:.2g}, at most {_FLOAT32_DIFFERENCE:.0e} is allowed"]
    complaints, one = [], 1 / model.num_photographs + 1e-9
    if model.same_top1 < min(limits.same_top1, 1 - one):
        complaints.append(
            f"the best class is the same for {model.same_top1:.1%} of the photographs, at least "
            f"{limits.same_top1:.1%} are wanted"
        )
    if abs(change := model.accuracy - model.accuracy_of_saved_model) > max(limits.accuracy_change + 1e-9, one):
        complaints.append(
            f"accuracy changes by {100 * change:+.2f} points, at most {100 * limits.accuracy_change} are allowed"
        )
    if model.difference_p99 > limits.difference_p99:
        complaints.append(
            f"the 99th percentile of the largest differences is {model.difference_p99:.3f}, at most "
            f"{limits.difference_p99} is allowed"
        )
    return complaints
