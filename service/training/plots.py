"""Curves of a training, as SVG."""

from collections.abc import Sequence

from matplotlib.figure import Figure

from service.evaluation.plots import to_svg
from service.training.checkpoint import Epoch


def draw_curves(history: Sequence[Epoch]) -> str:
    """Draw loss and accuracy of train and validation against the epoch."""
    figure = Figure(figsize=(10, 4), layout="constrained")
    losses, accuracies = figure.subplots(1, 2)
    epochs = [result.epoch + 1 for result in history]
    losses.plot(epochs, [result.loss for result in history], label="train (augmented views)")
    losses.plot(epochs, [result.validation_loss for result in history], label="validation")
    losses.set(xlabel="epoch", ylabel="cross-entropy")
    accuracies.plot(epochs, [100 * result.accuracy for result in history], label="train (augmented views)")
    accuracies.plot(epochs, [100 * (result.validation_accuracy or 0) for result in history], label="validation")
    accuracies.set(xlabel="epoch", ylabel="accuracy, %")
    for axes in (losses, accuracies):
        axes.grid(alpha=0.3)
        axes.legend()
    return to_svg(figure)
