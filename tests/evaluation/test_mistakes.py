from pathlib import Path

import numpy as np

from service.evaluation.mistakes import Mistake, list_mistakes
from service.evaluation.score import Answers


def test_the_most_confident_mistake_is_the_first() -> None:
    probabilities = np.array([[0.75, 0.25], [0.875, 0.125], [0.375, 0.625]], np.float32)
    answers = Answers((Path("a"), Path("b"), Path("c")), probabilities, np.array([0, 1, 0]))
    assert list_mistakes(answers, ["daisy", "roses"]) == [
        Mistake(Path("b"), "roses", "daisy", 0.875),
        Mistake(Path("c"), "daisy", "roses", 0.625),
    ]
