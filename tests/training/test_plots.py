from service.training.checkpoint import Epoch
from service.training.plots import draw_curves


def test_the_curves_show_training_and_validation() -> None:
    history = [Epoch(number, 1.0 / (number + 1), 0.5, 1.2, 0.4, 1e-3, 2.0, 6.0) for number in range(3)]
    svg = draw_curves(history)
    assert svg.count("<svg") == 1
    for words in ("epoch", "cross-entropy", "accuracy, %", "validation"):
        assert words in svg


def test_a_training_without_validation_has_curves() -> None:
    assert "<svg" in draw_curves([Epoch(0, 1.0, 0.5, None, None, 1e-3, 2.0, 6.0)])
