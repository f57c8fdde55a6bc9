"""Ranking of one image's probabilities: labels, best first, and the rule that tells whether the best is confident."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from service.errors import InvalidParameter

if TYPE_CHECKING:
    import numpy as np  # a client that only prints scores need not load it
    from numpy.typing import NDArray

Reason = Literal["low-probability", "unlike-training"]
"""Why an answer is not confident."""


@dataclass(frozen=True)
class ConfidentRule:
    """Limits of a confident answer. None means no limit.

    `min_probability` is the least probability of the best class. `max_energy` and `max_distance` are the largest energy
    and the largest distance from the training photographs, in the units of the version's network.

    Source: Liu et al. (2020), "Energy-based Out-of-distribution Detection", section 3.
    """

    min_probability: float
    max_energy: float | None = None
    max_distance: float | None = None

    def doubt(self, probability: float, energy: float | None = None, distance: float | None = None) -> Reason | None:
        """Return why an answer is not confident. None means that it is.

        "unlike-training" takes precedence over "low-probability". An energy or a distance of None is not checked.
        """
        for value, limit in ((energy, self.max_energy), (distance, self.max_distance)):
            if value is not None and limit is not None and value > limit:
                return "unlike-training"
        return "low-probability" if probability < self.min_probability else None


@dataclass(frozen=True)
class Score:
    """One class. Its probability, 0 to 1, is the shortest decimal that is the engine's float32."""

    label: str
    probability: float


@dataclass(frozen=True)
class Ranking:
    """Scores of one image, best first. Equal ones keep the order of the classes.

    `reason` tells why the best is not confident. None means that it is.
    """

    scores: tuple[Score, ...]
    reason: Reason | None

    @property
    def confident(self) -> bool:
        """Whether the best class passes every limit of the rule."""
        return self.reason is None


def check_top_k(top_k: int | None, num_classes: int, name: str = "top_k") -> None:
    """Refuse a number of scores that a model does not have. None means all classes.

    Raises `InvalidParameter`, with the parameter's `name` as the user writes it.
    """
    if top_k is not None and not 1 <= top_k <= num_classes:
        raise InvalidParameter(f"{name} is {top_k}. This model has {num_classes} classes. Ask for 1 to {num_classes}.")


def rank(
    probabilities: "NDArray[np.float32]", class_names: Sequence[str], top_k: int | None, rule: ConfidentRule, *,
    energy: float | None, distance: float | None,
) -> Ranking:  # fmt: skip
    """Sort the classes of one image by probability.

    Args:
        probabilities: float32, shape (num_classes,), ordered like `class_names`.
        class_names: Labels.
        top_k: Number of scores, within the bounds of `check_top_k`. None means all classes.
        rule: Limits of a confident answer.
        energy, distance: Those of the image. None means that the network has no such output.
    """
    check_top_k(top_k, len(class_names))
    # The shortest decimal that is this float32: 0.941 rather than 0.9409999847412109, and nothing is lost.
    scores = [Score(label, float(str(value))) for label, value in zip(class_names, probabilities, strict=True)]
    scores.sort(key=lambda score: -score.probability)  # NumPy's sort lets go of the GIL, and waits to have it again
    return Ranking(tuple(scores[:top_k]), rule.doubt(scores[0].probability, energy, distance))
