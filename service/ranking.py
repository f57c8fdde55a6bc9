"""Ranking of one image's probabilities: labels, best first, and whether the best is confident."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from service.errors import InvalidParameter

if TYPE_CHECKING:
    import numpy as np  # a client that only prints scores need not load it
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Score:
    """One class. Its probability, 0 to 1, is the shortest decimal that is the engine's float32."""

    label: str
    probability: float


@dataclass(frozen=True)
class Ranking:
    """Scores of one image, best first. Equal ones keep the order of the classes.

    `confident` tells whether the best probability reaches the threshold.
    """

    scores: tuple[Score, ...]
    confident: bool


def check_top_k(top_k: int | None, num_classes: int, name: str = "top_k") -> None:
    """Refuse a number of scores that a model does not have. None means all classes.

    Raises `InvalidParameter`, with the parameter's `name` as the user writes it.
    """
    if top_k is not None and not 1 <= top_k <= num_classes:
        raise InvalidParameter(f"{name} is {top_k}. This model has {num_classes} classes. Ask for 1 to {num_classes}.")


def rank(
    probabilities: "NDArray[np.float32]", class_names: Sequence[str], top_k: int | None, threshold: float
) -> Ranking:
    """Sort the classes of one image by probability.

    Args:
        probabilities: float32, shape (num_classes,), ordered like `class_names`.
        class_names: Labels.
        top_k: Number of scores, within the bounds of `check_top_k`. None means all classes.
        threshold: Least probability of a confident answer.
    """
    check_top_k(top_k, len(class_names))
    # The shortest decimal that is this float32: 0.941 rather than 0.9409999847412109, and nothing is lost.
    scores = [Score(label, float(str(value))) for label, value in zip(class_names, probabilities, strict=True)]
    scores.sort(key=lambda score: -score.probability)  # NumPy's sort lets go of the GIL, and waits to have it again
    return Ranking(tuple(scores[:top_k]), scores[0].probability >= threshold)
