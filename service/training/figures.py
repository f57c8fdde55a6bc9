"""Pictures of a training: its curves, and the confusion matrix; SVG, no display needed."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from service.training.checkpoint import Epoch


def draw_curves(history: Sequence[Epoch], path: Path) -> None:
    """Loss and accuracy of train and validation against the epoch, written to `path` (its suffix is the format)."""
    figure = Figure(figsize=(10, 4), layout="constrained")
    losses, accuracies = figure.subplots(1, 2)
    epochs = [result.epoch + 1 for result in history]
    losses.plot(epochs, [result.loss for result in history], label="train")
    losses.plot(epochs, [result.validation_loss for result in history], label="validation")
    losses.set(xlabel="epoch", ylabel="cross-entropy")
    accuracies.plot(epochs, [100 * result.accuracy for result in history], label="train (augmented views)")
    accuracies.plot(epochs, [100 * result.validation_accuracy for result in history], label="validation")
    accuracies.set(xlabel="epoch", ylabel="accuracy, %")
    for axes in (losses, accuracies):
        axes.grid(alpha=0.3)
        axes.legend()
    figure.savefig(path)


def draw_confusion(confusion: NDArray[np.int64], class_names: Sequence[str], title: str, path: Path) -> None:
    """A confusion matrix [true, predicted] with its counts, written to `path`."""
    figure = Figure(figsize=(1.2 * len(class_names) + 2, 1.1 * len(class_names) + 1.5), layout="constrained")
    axes = figure.subplots()
    shares = confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for true, predicted in np.ndindex(*confusion.shape):
        shade = "white" if shares[true, predicted] > 0.5 else "black"
        axes.text(predicted, true, str(confusion[true, predicted]), ha="center", va="center", color=shade)
    ticks = range(len(class_names))
    axes.set(xlabel="predicted", ylabel="true", title=title)
    axes.set_xticks(ticks, class_names, rotation=30, ha="right")
    axes.set_yticks(ticks, class_names)
    figure.savefig(path)
