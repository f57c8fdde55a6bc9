import json
import math

import numpy as np
import pytest

from service.evaluation.metrics import ClassMetrics, evaluate, wilson_interval

LABELS = ("daisy", "roses", "tulips")
PROBABILITIES = np.array(
    [[0.7, 0.2, 0.1], [0.3, 0.6, 0.1], [0.1, 0.8, 0.1], [0.2, 0.5, 0.3], [0.1, 0.3, 0.6], [0.5, 0.4, 0.1]],
    np.float32,
)
TRUTH = np.array([0, 0, 1, 1, 2, 2])


def test_counts_and_shares_are_those_counted_by_hand() -> None:
    evaluation = evaluate(PROBABILITIES, TRUTH, LABELS)
    assert (evaluation.num_photographs, evaluation.num_correct) == (6, 4)
    assert evaluation.accuracy == 4 / 6
    assert (evaluation.accuracy_low, evaluation.accuracy_high) == pytest.approx((0.3000, 0.9032), abs=5e-5)
    assert evaluation.per_class == (
        ClassMetrics("daisy", precision=1 / 2, recall=1 / 2, f1=1 / 2, support=2),
        ClassMetrics("roses", precision=2 / 3, recall=2 / 2, f1=4 / 5, support=2),
        ClassMetrics("tulips", precision=1 / 1, recall=1 / 2, f1=2 / 3, support=2),
    )


def test_the_confusion_matrix_is_true_by_predicted() -> None:
    confusion = evaluate(PROBABILITIES, TRUTH, LABELS).confusion
    np.testing.assert_array_equal(confusion, [[1, 1, 0], [0, 2, 0], [1, 0, 1]])
    assert confusion.dtype == np.int64


def test_log_loss_is_the_mean_negative_logarithm() -> None:
    expected = -sum(map(math.log, (0.7, 0.3, 0.8, 0.5, 0.6, 0.1))) / 6
    assert evaluate(PROBABILITIES, TRUTH, LABELS).log_loss == pytest.approx(expected, abs=1e-6)


def test_a_probability_of_zero_costs_much_but_not_infinitely() -> None:
    loss = evaluate(np.array([[1, 0, 0]], np.float32), np.array([1]), LABELS).log_loss
    assert loss == pytest.approx(-math.log(np.finfo(np.float32).eps))


def test_the_calibration_error_is_the_one_computed_by_hand() -> None:
    # Bins of 1/15: {0.5 right, 0.5 wrong} is off by 0, {0.6 wrong, 0.6 right} by 0.2, 0.7 by 0.3, 0.8 by 0.2.
    error = evaluate(PROBABILITIES, TRUTH, LABELS).expected_calibration_error
    assert error == pytest.approx((0.0 + 0.2 + 0.3 + 0.2) / 6, abs=1e-6)


def test_a_calibrated_network_has_no_calibration_error() -> None:
    rows = np.tile(np.array([[0.75, 0.25]], np.float32), (4, 1))
    assert evaluate(rows, np.array([0, 0, 0, 1]), ("a", "b")).expected_calibration_error == pytest.approx(0)
    assert evaluate(rows, np.array([1, 1, 1, 1]), ("a", "b")).expected_calibration_error == pytest.approx(0.75)


def test_bins_have_the_same_width() -> None:
    # 0.90 and 0.95 lie in two of 15 bins: hit and miss do not make up for each other; in ten bins they would.
    rows = np.array([[0.90, 0.10], [0.95, 0.05], [1.0, 0.0]], np.float32)
    error = evaluate(rows, np.array([0, 1, 0]), ("a", "b")).expected_calibration_error
    assert error == pytest.approx((0.10 + abs(1 - 1.95)) / 3, abs=1e-6)


@pytest.mark.parametrize(
    ("num_correct", "num_photographs", "low", "high"),
    # Newcombe 1998, "Two-sided confidence intervals for the single proportion", table I, method 3.
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0000, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_the_wilson_interval_is_the_published_one(
    num_correct: int, num_photographs: int, low: float, high: float
) -> None:
    assert wilson_interval(num_correct, num_photographs) == pytest.approx((low, high), abs=5e-5)
    mirrored = wilson_interval(num_photographs - num_correct, num_photographs)
    assert mirrored == pytest.approx((1 - high, 1 - low), abs=5e-5)


def test_an_empty_class_has_zeros_without_a_warning() -> None:
    evaluation = evaluate(np.array([[0.9, 0.1, 0.0]], np.float32), np.array([0]), LABELS)
    assert evaluation.per_class[1] == ClassMetrics("roses", precision=0, recall=0, f1=0, support=0)
    assert evaluation.accuracy_high == 1


def test_of_equal_probabilities_the_first_class_is_predicted() -> None:
    assert evaluate(np.array([[0.4, 0.4, 0.2]], np.float32), np.array([0]), LABELS).num_correct == 1


def test_json_holds_every_number() -> None:
    evaluation = evaluate(PROBABILITIES, TRUTH, LABELS)
    document = json.loads(json.dumps(evaluation.to_dict()))
    assert document["confusion"] == [[1, 1, 0], [0, 2, 0], [1, 0, 1]]
    assert document["per_class"][1] == {
        "label": "roses",
        "precision": 2 / 3,
        "recall": 1,
        "f1": 0.8,
        "support": 2,
    }
    for name in ("num_photographs", "num_correct", "accuracy", "accuracy_low", "accuracy_high", "log_loss"):
        assert document[name] == getattr(evaluation, name)
    assert document["expected_calibration_error"] == evaluation.expected_calibration_error
    assert document["calibration_error_by_chance"] == evaluation.calibration_error_by_chance
    assert len(document) == 10


def test_chance_explains_no_error_of_an_overconfident_network() -> None:
    random = np.random.default_rng(3)
    top1 = random.uniform(0.5, 1, 400)
    rows = np.stack([top1, 1 - top1], axis=1).astype(np.float32)
    honest = evaluate(rows, (random.random(400) >= top1).astype(int), ("a", "b"))
    assert 0 < honest.expected_calibration_error < honest.calibration_error_by_chance < 0.1
    overconfident = evaluate(rows, (random.random(400) >= top1 - 0.2).astype(int), ("a", "b"))
    assert overconfident.expected_calibration_error > overconfident.calibration_error_by_chance


def test_95_of_100_calibrated_networks_have_a_smaller_error() -> None:
    rows = np.tile(np.array([[0.8, 0.2], [0.6, 0.4]], np.float32), (50, 1))
    found = evaluate(rows, np.zeros(100, int), ("a", "b")).calibration_error_by_chance
    assert found == pytest.approx(0.10000000596046447, abs=1e-6)


def test_fewer_photographs_leave_more_to_chance() -> None:
    rows = np.tile(np.array([[0.8, 0.2], [0.6, 0.4]], np.float32), (10, 1))
    few, many = (evaluate(np.tile(rows, (n, 1)), np.zeros(20 * n, int), ("a", "b")) for n in (1, 50))
    assert few.calibration_error_by_chance > 3 * many.calibration_error_by_chance


def test_an_absent_class_has_no_shares_in_the_document() -> None:
    evaluation = evaluate(np.array([[0.2, 0.7, 0.1]], np.float32), np.array([0]), LABELS)
    assert evaluation.absent_classes == ("roses", "tulips")
    document = json.loads(json.dumps(evaluation.to_dict()))
    assert document["per_class"][1] == {"label": "roses", "precision": None, "recall": None, "f1": None, "support": 0}
    assert document["per_class"][0]["recall"] == 0
