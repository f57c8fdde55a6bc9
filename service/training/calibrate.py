"""Calibration of a network by a temperature and the limits of `confident`."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

COVERAGE = 0.95
"""Share of the calibrating photographs that is confident."""

# A limit lies this far beyond its photograph. Engines and batch sizes differ by less.
_RELATIVE_SLACK, _SLACK = 1e-4, 1e-6


@dataclass(frozen=True)
class Calibration:
    """Temperature and limits of `confident`, from photographs that the network has not learned.

    `confidence_threshold` is the least probability. `max_energy` is the largest energy, of logits before the
    temperature. `max_distance` is None for a network without distances. `probabilities`, float32 (N, num_classes), are
    the answers at `temperature`. `class_indices`, int64 (N,), are the true classes. `part` names the photographs.
    """

    temperature: float
    confidence_threshold: float
    probabilities: NDArray[np.float32]
    class_indices: NDArray[np.int64]
    part: str
    max_energy: float
    max_distance: float | None


def calibrate(
    logits: NDArray[np.floating], class_indices: NDArray[np.int64], part: str = "validation",
    distances: NDArray[np.floating] | None = None,
) -> Calibration:  # fmt: skip
    """Find the temperature, and the limits that `COVERAGE` of the photographs keep all together.

    Args:
        logits: Float, shape (N, num_classes), before any temperature. N is at least 1.
        class_indices: int64, shape (N,), the true classes.
        part: Name of the photographs. The network has not learned them.
        distances: Float, shape (N,), from the training photographs. None means that the network has none.

    Sources: Guo et al. (2017), "On Calibration of Modern Neural Networks", section 4.2, for the temperature. Liu et al.
    (2020), "Energy-based Out-of-distribution Detection", section 3, for a limit that 95 % of known photographs keep.
    """
    temperature = fit_temperature(logits, class_indices)
    probabilities = softmax(logits, temperature).astype(np.float32)
    columns = [-probabilities.max(axis=1), energies(logits), *([] if distances is None else [distances])]
    threshold, max_energy, *others = common_limits(columns)
    return Calibration(
        temperature, float(np.clip(-threshold, 0, 1)), probabilities, class_indices, part,
        max_energy, others[0] if others else None,
    )  # fmt: skip


def common_limits(columns: Sequence[NDArray[np.floating]], coverage: float = COVERAGE) -> list[float]:
    """Return an upper limit for each column. At least a share `coverage` of the rows keeps all limits.

    Columns are float, shape (N,), lower for photographs that are more certain. All limits are at one rank. So no column
    refuses many more photographs than another. A limit lies by a part in 10,000 beyond the value at that rank. Equal
    values have the same rank.
    """
    ordered = [np.sort(column) for column in columns]
    ranks = [np.searchsorted(values, column) for values, column in zip(ordered, columns, strict=True)]  # smaller ones
    worst = np.max(ranks, axis=0)
    last = int(np.quantile(worst, coverage, method="inverted_cdf"))
    return [float(values[last] + _RELATIVE_SLACK * abs(values[last]) + _SLACK) for values in ordered]


def energies(logits: NDArray[np.floating]) -> NDArray[np.float32]:
    """Return the energies, float32 (N,), of logits, float (N, num_classes), before the temperature.

    Source: Liu et al. (2020), "Energy-based Out-of-distribution Detection", section 3.1.
    """
    largest = np.asarray(logits, np.float64).max(axis=-1)
    return np.asarray(-largest - np.log(np.exp(logits - largest[:, None]).sum(axis=-1)), np.float32)


def softmax(logits: NDArray[np.floating], temperature: float = 1.0) -> NDArray[np.float64]:
    """Return probabilities, float64 (N, num_classes), of logits divided by `temperature`. Each row has the sum 1."""
    scaled = np.asarray(logits, np.float64) / temperature
    scaled -= scaled.max(axis=-1, keepdims=True)
    exponentials = np.exp(scaled)
    return np.asarray(exponentials / exponentials.sum(axis=-1, keepdims=True))


def fit_temperature(logits: NDArray[np.floating], class_indices: NDArray[np.int64]) -> float:
    """Return the temperature in [0.05, 20] that makes the true classes most likely. Arguments are as of `calibrate`.

    Above 1 the network was overconfident. Below 1 it was underconfident.

    Source: Guo et al. (2017), "On Calibration of Modern Neural Networks", section 4.2.
    """
    rows = np.arange(len(class_indices))

    def log_loss(log_temperature: float) -> float:
        chosen = softmax(logits, float(np.exp(log_temperature)))[rows, class_indices]
        return float(-np.log(np.maximum(chosen, 1e-300)).mean())

    # Golden-section search: the loss has one minimum along 1 / temperature, in which it is convex.
    low, high = np.log(0.05), np.log(20.0)
    ratio = (np.sqrt(5) - 1) / 2
    for _ in range(60):
        left, right = high - ratio * (high - low), low + ratio * (high - low)
        low, high = (low, right) if log_loss(left) < log_loss(right) else (left, high)
    return float(np.exp((low + high) / 2))
