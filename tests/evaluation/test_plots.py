import re
import time

import numpy as np
import pytest

from service.evaluation.metrics import Evaluation, evaluate
from service.evaluation.plots import draw_confusion, draw_reliability
from service.evaluation.score import Answers


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


def place_of(text: str, svg: str) -> tuple[float, float]:
    """Place of a text, from the left and from the top."""
    (found,) = re.findall(rf'<text [^>]*x="([\d.]+)" y="([\d.]+)"[^>]*>{text}</text>', svg)
    return float(found[0]), float(found[1])


def test_rows_of_the_matrix_are_true_classes() -> None:
    confusion = np.array([[11, 12], [13, 14]])
    truth, answers = (np.repeat(index, confusion.ravel()) for index in ([0, 0, 1, 1], [0, 1, 0, 1]))
    svg = draw_confusion(evaluate(np.eye(2, dtype=np.float32)[answers], truth, ("roses", "tulips")))
    places = {count: place_of(str(count), svg) for count in (11, 12, 13, 14)}
    assert places[11][0] == places[13][0] < places[12][0] == places[14][0]
    assert places[11][1] == places[12][1] < places[13][1] == places[14][1]
    assert place_of("predicted", svg)[1] > places[13][1]


def test_a_bar_is_the_share_that_is_right() -> None:
    rows = np.array([(0.65, 0.35)] * 3 + [(0.95, 0.05)] * 2, np.float32)
    svg = draw_reliability(Answers((), rows, np.array([0, 0, 0, 1, 1])))
    right, wrong = place_of("3", svg), place_of("2", svg)
    assert right[0] < wrong[0]
    assert right[1] < wrong[1]


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
