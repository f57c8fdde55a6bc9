import re
import time

import numpy as np
import pytest

from service.evaluation.metrics import Evaluation, evaluate
from service.evaluation.plots import draw_confusion


def evaluation_of(*class_names: str, per_class: int = 1) -> Evaluation:
    truth = np.tile(np.arange(len(class_names)), per_class)
    return evaluate(np.eye(len(class_names), dtype=np.float32)[truth], truth, class_names)


def texts_of(svg: str) -> list[str]:
    return re.findall(r">\s*([^<>]+?)\s*</text>", svg)


@pytest.mark.parametrize(
    "names",
    [("玫瑰", "郁金香"), ("गुलाब", "ट्यूलिप"), ("장미", "튤립"), ("🌹", "🌷"), ("ورد", "توليب")],
    ids=["Chinese", "Devanagari", "Korean", "emoji", "Arabic"],
)
def test_names_of_any_script_cause_no_warning(names: tuple[str, str]) -> None:
    assert set(names) <= set(texts_of(draw_confusion(evaluation_of(*names))))  # a warning is an error here


@pytest.mark.parametrize("names", [("$5_to_$10", "R$"), ("$x$", "$100$"), (r"\alpha", "_a^b")])
def test_a_name_is_never_a_formula(names: tuple[str, str]) -> None:
    assert set(names) <= set(texts_of(draw_confusion(evaluation_of(*names))))


def test_long_names_leave_room_for_the_matrix() -> None:
    texts = texts_of(draw_confusion(evaluation_of("x" * 200, "tulips")))
    assert ("x" * 20 + "…" + "x" * 19) in texts
    assert texts.count("1") == 2


def test_a_hundred_classes_are_drawn_in_seconds() -> None:
    names = [f"species_{number:03d}" for number in range(100)]
    begun = time.process_time()
    texts = texts_of(draw_confusion(evaluation_of(*names, per_class=3)))
    assert time.process_time() - begun < 5
    assert set(names) <= set(texts)
    assert texts.count("3") == 100
    assert "0" not in texts
