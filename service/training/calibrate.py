"""Make probabilities mean what they say: one temperature, and the threshold for `confident`."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Calibration:
    """What makes the scores mean something, from photographs that the network has not been trained on.

    `probabilities`, float32 (N, num_classes), are those of these photographs at `temperature`, `class_indices`, int64
    (N,), their classes; `part` says which photographs they are.
    """

    temperature: float
    confidence_threshold: float
    probabilities: NDArray[np.float32]
    class_indices: NDArray[np.int64]
    part: str


def calibrate(logits: NDArray[np.floating], class_indices: NDArray[np.int64], part: str = "validation") -> Calibration:
    """Temperature and threshold from logits (N, num_classes) of N photographs never trained on, and their classes.

    With cross-validation each photograph's logits are those of the network that has not learned it.
    """
    temperature = fit_temperature(logits, class_indices)
    probabilities = softmax(logits, temperature).astype(np.float32)
    return Calibration(temperature, confidence_threshold(probabilities), probabilities, class_indices, part)


def softmax(logits: NDArray[np.floating], temperature: float = 1.0) -> NDArray[np.float64]:
    """Probabilities of logits (N, num_classes) divided by `temperature`; float64, rows sum to 1."""
    scaled = np.asarray(logits, np.float64) / temperature
    scaled -= scaled.max(axis=-1, keepdims=True)
    exponentials = np.exp(scaled)
    return np.asarray(exponentials / exponentials.sum(axis=-1, keepdims=True))


def fit_temperature(logits: NDArray[np.floating], class_indices: NDArray[np.int64]) -> float:
    """The temperature that makes the true classes most likely: photographs never trained on, please.

    Args:
        logits: float, shape (N, num_classes).
        class_indices: int, shape (N,).

    Returns:
        A number in [0.05, 20]; above 1 the network was too sure of itself, below 1 not sure enough.

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
    """The top-1 probability that a share `coverage` of the photographs reaches; lower answers are not confident.

    Args:
        probabilities: shape (N, num_classes), of photographs of the right kind, never trained on.
        coverage: share of them that shall count as confident, in (0, 1).
    """
    return float(np.quantile(probabilities.max(axis=-1), 1 - coverage, method="lower"))
