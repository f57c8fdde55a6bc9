"""Mistakes of an evaluation, most confident first."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from service.evaluation.score import Answers


@dataclass(frozen=True)
class Mistake:
    """A photograph of the class `truth` whose most probable class is `answer`, with its probability in [0, 1]."""

    path: Path
    truth: str
    answer: str
    probability: float


def list_mistakes(answers: Answers, class_names: Sequence[str]) -> list[Mistake]:
    """List the photographs whose most probable class is wrong. The most confident mistake is the first."""
    predicted, top1 = answers.probabilities.argmax(axis=1), answers.probabilities.max(axis=1)
    wrong = np.flatnonzero(predicted != answers.class_indices)
    worst_first = wrong[np.argsort(-top1[wrong], kind="stable")]
    truth = answers.class_indices
    return [
        Mistake(answers.paths[i], class_names[truth[i]], class_names[predicted[i]], float(top1[i])) for i in worst_first
    ]
