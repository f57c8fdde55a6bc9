"""Several times of one experiment come to one result, which hides no failure."""

import pytest

from benchmarks.reliability.__main__ import median_of
from benchmarks.reliability.replica import Result


def measured(ratio: float, num_wrong: int) -> Result:
    result = Result(figures={"ratio": ratio})
    result.at_most(2, "p99 / p99 without", ratio)
    result.at_most(0, "wrong answers", num_wrong)
    return result


@pytest.mark.parametrize(("ratios", "is_kept"), [((1.0, 9.0, 1.9), True), ((2.1, 1.0, 2.2), False)])
def test_a_promise_has_its_median(ratios: tuple[float, ...], is_kept: bool) -> None:
    result = median_of([measured(ratio, 0) for ratio in ratios])
    assert (result.promises[0].measured, result.promises[0].is_kept) == (sorted(ratios)[1], is_kept)
    assert [one["figures"]["ratio"] for one in result.figures["times"]] == list(ratios)


def test_what_may_never_happen_has_its_worst() -> None:
    result = median_of([measured(1.0, number) for number in (0, 3, 0)])
    assert (result.promises[1].measured, result.promises[1].is_kept) == (3, False)
