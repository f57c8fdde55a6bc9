"""Calibration of a network by a temperature and the threshold of `confident`."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Calibration:
    """Temperature and threshold, from photographs that the network has not learned.

    `probabilities`, float32 (N, num_classes), are their answers at `temperature`. `class_indices`, int64 (N,), are
    their classes. `part` names them.
    """

    temperature: float
    confidence_threshold: float
    probabilities: NDArray[np.float32]
    class_indices: NDArray[np.int64]
    part: str


def calibrate(logits: NDArray[np.floating], class_indices: NDArray[np.int64], part: str = "validation") -> Calibration:
    """Find temperature and threshold from logits, float (N, num_classes), and true classes, int64 (N,)."""
    temperature = fit_temperature(logits, class_indices)
    probabilities = softmax(logits, temperature).astype(np.float32)
    return Calibration(temperature, confidence_threshold(probabilities), probabilities, class_indices, part)


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


def confidence_threshold(probabilities: NDArray[np.floating], coverage: float = 0.95) -> float:
    """Return the top-1 probability that a share `coverage`, in (0, 1), of float (N, num_classes) reaches."""
    return float(np.quantile(probabilities.max(axis=-1), 1 - coverage, method="lower"))
