"""Pictures of an evaluation, as SVG: the confusion matrix and the reliability diagram. Needs no display."""

import io

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure
from numpy.typing import NDArray

from service.evaluation.metrics import NUM_CALIBRATION_BINS, Evaluation, calibration_bins
from service.evaluation.score import Answers


def draw_confusion(evaluation: Evaluation) -> str:
    """The confusion matrix with its counts; true classes are rows."""
    names, confusion = evaluation.class_names, evaluation.confusion
    figure = Figure(figsize=(1.1 * len(names) + 2, 0.9 * len(names) + 1.5), layout="constrained")
    axes = figure.subplots()
    shares = confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for true, predicted in np.ndindex(*confusion.shape):
        shade = "white" if shares[true, predicted] > 0.5 else "black"
        axes.text(predicted, true, str(confusion[true, predicted]), ha="center", va="center", color=shade)
    ticks = range(len(names))
    axes.set(xlabel="predicted", ylabel="true")
    axes.set_xticks(ticks, names, rotation=30, ha="right")
    axes.set_yticks(ticks, names)
    return to_svg(figure)


def draw_reliability(answers: Answers) -> str:
    """Accuracy against the probability of the answer, by bins: on the diagonal the scores mean what they say."""
    top1 = answers.probabilities.max(axis=1)
    is_correct = answers.probabilities.argmax(axis=1) == answers.class_indices
    bins = calibration_bins(top1)
    counts = np.bincount(bins, minlength=NUM_CALIBRATION_BINS)
    figure = Figure(figsize=(5, 5), layout="constrained")
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color="0.6", linestyle="--", label="perfectly calibrated")
    centers = (np.arange(NUM_CALIBRATION_BINS) + 0.5) / NUM_CALIBRATION_BINS
    accuracy = _mean_by_bin(is_correct, bins, counts)
    axes.bar(centers, accuracy, 0.9 / NUM_CALIBRATION_BINS, alpha=0.7, label="accuracy")
    for center, share, count in zip(centers, accuracy, counts, strict=True):
        if count:
            axes.text(center, share + 0.01, str(count), ha="center", fontsize=7)
    axes.set(xlabel="probability of the answer", ylabel="share that is right", xlim=(0, 1), ylim=(0, 1.08))
    axes.legend(loc="upper left")
    return to_svg(figure)


def _mean_by_bin(values: NDArray[np.bool_], bins: NDArray[np.int64], counts: NDArray[np.int64]) -> NDArray[np.float64]:
    means: NDArray[np.float64] = np.bincount(bins, weights=values, minlength=NUM_CALIBRATION_BINS) / np.maximum(
        counts, 1
    )
    return means


def to_svg(figure: Figure) -> str:
    """The figure as an SVG document; the same figure gives the same text."""
    stream = io.StringIO()
    with rc_context({"svg.hashsalt": "flowers", "svg.fonttype": "none"}):
        figure.savefig(stream, format="svg", metadata={"Date": None})
    return stream.getvalue()
