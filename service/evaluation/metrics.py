"""Metrics of a report, from probabilities and true classes alone."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.engines.engine import Probabilities

NUM_CALIBRATION_BINS = 15
_NUM_DRAWS = 1000
_Z_95 = 1.959963984540054  # 97.5 % of the normal distribution lie below
_SMALLEST_PROBABILITY = float(np.finfo(np.float32).eps)  # a float32 softmax gives 0 to what is merely unlikely


@dataclass(frozen=True)
class ClassMetrics:
    """Metrics of one class. Precision is 0 without predictions, recall without photographs."""

    label: str
    precision: float
    recall: float
    f1: float
    support: int  # number of photographs that truly are of this class

    @property
    def shares(self) -> tuple[str, str, str]:
        """Return precision, recall and F1 as text. A class without photographs has dashes."""
        if not self.support:
            return "-", "-", "-"
        return f"{self.precision:.3f}", f"{self.recall:.3f}", f"{self.f1:.3f}"


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Result of `evaluate`.

    Attributes:
        accuracy: Top-1, 0-1. `accuracy_low` and `accuracy_high` are the ends of its 95 % Wilson interval.
        per_class: In the order of `class_names`.
        confusion: int64, shape (num_classes, num_classes). [true, predicted] counts photographs.
        expected_calibration_error: Mean distance of the top-1 probability from the accuracy, by bins, 0-1.
        calibration_error_by_chance: Limit that 95 of 100 calibrated networks with these probabilities keep, 0-1. An
            error below it is no evidence of miscalibration.
        log_loss: Mean of -log(probability of the true class), in nats.
    """

    num_photographs: int
    num_correct: int
    accuracy: float
    accuracy_low: float
    accuracy_high: float
    per_class: tuple[ClassMetrics, ...]
    confusion: NDArray[np.int64]
    expected_calibration_error: float
    calibration_error_by_chance: float
    log_loss: float

    @property
    def absent_classes(self) -> tuple[str, ...]:
        """List the classes without photographs."""
        return tuple(metrics.label for metrics in self.per_class if not metrics.support)

    @property
    def class_names(self) -> tuple[str, ...]:
        """List the labels, in the order of the network's outputs."""
        return tuple(metrics.label for metrics in self.per_class)

    def to_dict(self) -> dict[str, Any]:
        """Return the fields for `json.dumps`. Shares of an absent class are None."""
        return {
            **vars(self),
            "per_class": [
                asdict(one) if one.support else {**asdict(one), "precision": None, "recall": None, "f1": None}
                for one in self.per_class
            ],
            "confusion": self.confusion.tolist(),
        }

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> "Evaluation":
        """Return the evaluation that `to_dict` wrote. Raises `KeyError`, `TypeError` or `ValueError`."""
        per_class = tuple(ClassMetrics(**metrics) for metrics in fields["per_class"])
        confusion = np.array(fields["confusion"], np.int64)
        return cls(**{**fields, "per_class": per_class, "confusion": confusion})


def evaluate(
    probabilities: Probabilities, class_indices: NDArray[np.integer[Any]], class_names: Sequence[str]
) -> Evaluation:
    """Compare `probabilities`, float32, shape (N, num_classes), N >= 1, with the true `class_indices`, shape (N,).

    Sources: Wilson 1927 (interval). Guo et al. 2017, "On calibration of modern neural networks" (calibration error).
    """
    num_photographs, num_classes = probabilities.shape
    predicted = probabilities.argmax(axis=1)  # the first of equals, as `rank`
    confusion = np.zeros((num_classes, num_classes), np.int64)
    np.add.at(confusion, (class_indices, predicted), 1)
    num_correct = int(confusion.trace())
    low, high = wilson_interval(num_correct, num_photographs)
    top1_probabilities = probabilities.max(axis=1)
    true_probabilities = probabilities[np.arange(num_photographs), class_indices].astype(np.float64)
    return Evaluation(
        num_photographs=num_photographs,
        num_correct=num_correct,
        accuracy=num_correct / num_photographs,
        accuracy_low=low,
        accuracy_high=high,
        per_class=tuple(_class_metrics(confusion, index, label) for index, label in enumerate(class_names)),
        confusion=confusion,
        expected_calibration_error=_calibration_error(top1_probabilities, predicted == class_indices),
        calibration_error_by_chance=_calibration_error_by_chance(top1_probabilities),
        log_loss=float(-np.log(np.maximum(true_probabilities, _SMALLEST_PROBABILITY)).mean()),
    )


def wilson_interval(num_correct: int, num_photographs: int) -> tuple[float, float]:
    """Return the 95 % interval of a share. It stays within 0-1."""
    share = num_correct / num_photographs
    z2 = _Z_95**2 / num_photographs
    center = share + z2 / 2
    half = _Z_95 * math.sqrt(share * (1 - share) / num_photographs + z2 / num_photographs / 4)
    return max(0.0, (center - half) / (1 + z2)), min(1.0, (center + half) / (1 + z2))


def _class_metrics(confusion: NDArray[np.int64], class_index: int, label: str) -> ClassMetrics:
    hits = int(confusion[class_index, class_index])
    support = int(confusion[class_index].sum())
    num_predicted = int(confusion[:, class_index].sum())
    return ClassMetrics(
        label=label,
        precision=hits / num_predicted if num_predicted else 0.0,
        recall=hits / support if support else 0.0,
        f1=2 * hits / (support + num_predicted) if support + num_predicted else 0.0,
        support=support,
    )


def calibration_bins(top1_probabilities: NDArray[Any]) -> NDArray[np.int64]:
    """Return the bin of each top-1 probability, from 0. Bins are (low, high] and equally wide."""
    bins = np.ceil(top1_probabilities.astype(np.float64) * NUM_CALIBRATION_BINS) - 1
    clipped: NDArray[np.int64] = np.clip(bins, 0, NUM_CALIBRATION_BINS - 1).astype(np.int64)
    return clipped


def _calibration_error(top1_probabilities: NDArray[Any], is_correct: NDArray[np.bool_]) -> float:
    """Sum |accuracy - mean probability| over the bins, weighted by size."""
    probabilities = top1_probabilities.astype(np.float64)
    # A bin's size times its gap is |its hits - its sum of probabilities|.
    gaps = np.bincount(
        calibration_bins(probabilities), weights=is_correct - probabilities, minlength=NUM_CALIBRATION_BINS
    )
    return float(np.abs(gaps).sum() / len(probabilities))


def _calibration_error_by_chance(top1_probabilities: NDArray[Any]) -> float:
    """Return the 95th percentile of a calibrated network's error."""
    random = np.random.default_rng(0)
    errors = [
        _calibration_error(top1_probabilities, random.random(len(top1_probabilities)) < top1_probabilities)
        for _ in range(_NUM_DRAWS)
    ]
    return float(np.quantile(errors, 0.95))
