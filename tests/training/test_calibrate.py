from collections.abc import Sequence

import numpy as np
import pytest

from service.training.calibrate import calibrate, common_limits, energies, fit_temperature, softmax


@pytest.mark.parametrize("true_temperature", [0.5, 1.0, 3.0])
def test_the_temperature_that_made_the_labels_is_found_again(true_temperature: float) -> None:
    random = np.random.default_rng(0)
    logits = random.normal(0, 3, (20_000, 5))
    cumulative = softmax(logits, true_temperature).cumsum(axis=1)
    class_indices = (random.random((20_000, 1)) > cumulative).sum(axis=1)
    assert fit_temperature(logits, class_indices) == pytest.approx(true_temperature, rel=0.05)


def test_all_right_and_all_wrong_stay_within_the_bounds() -> None:
    logits = np.eye(4)
    assert fit_temperature(logits, np.arange(4)) == pytest.approx(0.05, rel=0.01)
    assert fit_temperature(logits, np.array([1, 2, 3, 0])) == pytest.approx(20, rel=0.01)


def test_softmax_of_huge_logits_sums_to_one() -> None:
    probabilities = softmax(np.array([[1e4, 0.0, -1e4]]))
    np.testing.assert_allclose(probabilities, [[1, 0, 0]], atol=1e-12)


def test_the_energy_of_huge_logits_is_finite() -> None:
    logits = np.array([[1e4, 1e4, -1e4], [0, 0, 0]])
    np.testing.assert_allclose(energies(logits), [-1e4 - np.log(2), -np.log(3)], rtol=1e-6)


def count_kept(columns: Sequence[np.ndarray]) -> int:
    """How many rows keep every limit of `common_limits`."""
    return int((np.stack(columns, axis=1) <= common_limits(columns)).all(axis=1).sum())


@pytest.mark.parametrize(("num_photographs", "num_kept"), [(1, 1), (5, 5), (20, 19), (40, 38), (2000, 1900)])
def test_95_of_100_photographs_keep_all_limits(num_photographs: int, num_kept: int) -> None:
    columns = list(np.random.default_rng(1).normal(0, 10, (3, num_photographs)))
    assert num_kept <= count_kept(columns) < num_kept + len(columns)  # each column may refuse at the same rank


def test_limits_are_at_one_rank() -> None:
    columns = list(np.random.default_rng(1).normal(0, [[1.0], [1000.0]], (2, 2000)))
    limits = common_limits(columns)
    refused = [(column > limit).sum() for column, limit in zip(columns, limits, strict=True)]
    assert refused[0] == pytest.approx(refused[1], abs=3)
    assert 50 <= refused[0] < 100, "together they refuse 100"


def test_equal_values_are_kept_together() -> None:
    columns = [np.repeat([0.0, 1.0], [10, 10]), np.zeros(20)]
    assert count_kept(columns) == 20
    assert common_limits([np.repeat([0.0, 1.0], [19, 1])])[0] < 0.5


def test_a_limit_allows_for_rounding() -> None:
    probabilities, energy = np.full(20, -1.0), np.full(20, -1000.0)
    threshold, max_energy = common_limits([probabilities, energy])
    assert -threshold < np.nextafter(np.float32(1), np.float32(0))
    assert -1000 < max_energy < -999


@pytest.mark.parametrize("has_distances", [False, True])
def test_a_calibration_keeps_95_of_100_photographs(has_distances: bool) -> None:
    random = np.random.default_rng(1)
    logits, class_indices = random.normal(0, 3, (2000, 5)).astype(np.float32), random.integers(0, 5, 2000)
    distances = random.gamma(2, 3, 2000) if has_distances else None
    calibration = calibrate(logits, class_indices, "validation", distances)
    confident = calibration.probabilities.max(axis=1) >= calibration.confidence_threshold
    confident &= energies(logits) <= calibration.max_energy
    if distances is not None:
        assert calibration.max_distance is not None
        confident &= distances <= calibration.max_distance
    assert (calibration.max_distance is not None) == has_distances
    assert confident.mean() == pytest.approx(0.95, abs=0.002)
    assert calibration.temperature == fit_temperature(logits, class_indices)
    np.testing.assert_allclose(calibration.probabilities, softmax(logits, calibration.temperature), atol=1e-6)
    assert calibration.part == "validation"


def test_the_energy_is_of_logits_before_the_temperature() -> None:
    logits, class_indices = np.eye(4) * 9, np.arange(4)  # the temperature is 0.05
    limit = calibrate(logits, class_indices).max_energy
    assert limit == pytest.approx(-np.log(np.exp(9) + 3), rel=1e-3)
