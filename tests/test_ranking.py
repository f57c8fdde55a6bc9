import numpy as np
import pytest

from service.errors import InvalidParameter
from service.ranking import ConfidentRule, Ranking, Reason, Score, check_top_k, rank

NAMES = ("daisy", "roses", "tulips")
ROW = np.array([0.25, 0.5, 0.25], np.float32)
FULL_RULE = ConfidentRule(0.5, max_energy=-3, max_distance=10)


def ranked(
    top_k: int | None = None,
    rule: ConfidentRule = FULL_RULE,
    energy: float | None = None,
    distance: float | None = None,
) -> Ranking:
    """The ranking of `ROW`, whose best probability is 0.5."""
    return rank(ROW, NAMES, top_k, rule, energy=energy, distance=distance)


def test_scores_are_sorted_and_equal_ones_keep_their_order() -> None:
    assert ranked().scores == (Score("roses", 0.5), Score("daisy", 0.25), Score("tulips", 0.25))


def test_a_probability_is_the_shortest_decimal_of_its_float32() -> None:
    one = rank(np.array([0.941], np.float32), ["daisy"], None, FULL_RULE, energy=None, distance=None)
    assert one.scores == (Score("daisy", 0.941),)


def test_top_k_bounds_the_number_of_scores() -> None:
    assert ranked(2).scores == (Score("roses", 0.5), Score("daisy", 0.25))


@pytest.mark.parametrize("top_k", [-1, 0, 4])
def test_top_k_is_bounded_by_the_number_of_classes(top_k: int) -> None:
    message = f"--top-k is {top_k}. This model has 3 classes. Ask for 1 to 3."
    with pytest.raises(InvalidParameter, match=message):
        check_top_k(top_k, 3, "--top-k")
    with pytest.raises(InvalidParameter, match=f"top_k is {top_k}"):
        ranked(top_k)


@pytest.mark.parametrize(("threshold", "confident"), [(0.0, True), (0.5, True), (0.5001, False)])
def test_confident_begins_at_the_threshold(threshold: float, confident: bool) -> None:
    answer = ranked(1, ConfidentRule(threshold))
    assert (answer.confident, answer.reason) == (confident, None if confident else "low-probability")


@pytest.mark.parametrize(
    ("energy", "distance", "reason"),
    [
        (-3, 10, None),
        (-2.999, 10, "unlike-training"),
        (-3, 10.001, "unlike-training"),
        (None, 10.001, "unlike-training"),
        (None, None, None),
    ],
)
def test_energy_and_distance_have_limits_of_their_own(
    energy: float | None, distance: float | None, reason: Reason | None
) -> None:
    assert ranked(energy=energy, distance=distance).reason == reason


def test_unlike_training_is_said_before_low_probability() -> None:
    assert FULL_RULE.doubt(0.1, energy=0, distance=0) == "unlike-training"
    assert FULL_RULE.doubt(0.1, energy=-4, distance=0) == "low-probability"


def test_what_has_no_limit_is_not_checked() -> None:
    assert ConfidentRule(0.5).doubt(0.5, energy=1e9, distance=1e9) is None
