import numpy as np
import pytest

from service.training.calibrate import calibrate, confidence_threshold, fit_temperature, softmax


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


def test_the_threshold_keeps_the_wanted_share() -> None:
    top = np.linspace(0.21, 0.99, 200)
    probabilities = np.column_stack([top, 1 - top])
    top = probabilities.max(axis=1)
    threshold = confidence_threshold(probabilities, coverage=0.9)
    assert (top >= threshold).mean() == pytest.approx(0.9, abs=0.01)


def test_95_of_100_photographs_reach_the_threshold() -> None:
    random = np.random.default_rng(1)
    logits, class_indices = random.normal(0, 3, (2000, 5)).astype(np.float32), random.integers(0, 5, 2000)
    calibration = calibrate(logits, class_indices, "validation")
    top = calibration.probabilities.max(axis=1)
    assert (top >= calibration.confidence_threshold).mean() == pytest.approx(0.95, abs=0.001)
    assert calibration.temperature == fit_temperature(logits, class_indices)
    np.testing.assert_allclose(calibration.probabilities, softmax(logits, calibration.temperature), atol=1e-6)
    assert calibration.part == "validation"
