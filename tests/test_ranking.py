import numpy as np
import pytest

from service.errors import InvalidParameter
from service.ranking import Score, check_top_k, rank

NAMES = ("daisy", "roses", "tulips")
ROW = np.array([0.25, 0.5, 0.25], np.float32)


def test_scores_are_sorted_and_equal_ones_keep_their_order() -> None:
    assert rank(ROW, NAMES, None, 0).scores == (Score("roses", 0.5), Score("daisy", 0.25), Score("tulips", 0.25))


def test_a_probability_is_the_shortest_decimal_of_its_float32() -> None:
    assert rank(np.array([0.941], np.float32), ["daisy"], None, 0).scores == (Score("daisy", 0.941),)


def test_top_k_bounds_the_number_of_scores() -> None:
    assert rank(ROW, NAMES, 2, 0).scores == (Score("roses", 0.5), Score("daisy", 0.25))


@pytest.mark.parametrize("top_k", [-1, 0, 4])
def test_top_k_is_bounded_by_the_number_of_classes(top_k: int) -> None:
    message = f"--top-k is {top_k}. This model has 3 classes. Ask for 1 to 3."
    with pytest.raises(InvalidParameter, match=message):
        check_top_k(top_k, 3, "--top-k")
    with pytest.raises(InvalidParameter, match=f"top_k is {top_k}"):
        rank(ROW, NAMES, top_k, 0)


@pytest.mark.parametrize(("threshold", "confident"), [(0.0, True), (0.5, True), (0.5001, False)])
def test_confident_begins_at_the_threshold(threshold: float, confident: bool) -> None:
    assert rank(ROW, NAMES, 1, threshold).confident is confident
