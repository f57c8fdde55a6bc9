"""Figures of an evaluation, as SVG: the confusion matrix and the reliability diagram. They need no display.

Class names are the user's text. They are never a formula, and the reader's fonts draw them.
"""

import io
import unicodedata
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure

from service.evaluation.metrics import NUM_CALIBRATION_BINS, Evaluation, calibration_bins
from service.evaluation.score import Answers

_FEW_CLASSES = 10  # classes above which a confusion matrix has small cells, and no zeros
_MAX_COUNTS = 2500  # counts above which a confusion matrix shows colours alone. So many take about a second
_MAX_NAME_LENGTH = 40  # in characters; a longer name would leave no room for the matrix


def draw_confusion(evaluation: Evaluation) -> str:
    """Draw the confusion matrix with its counts. True classes are rows."""
    names, confusion = [_shorten(name) for name in evaluation.class_names], evaluation.confusion
    has_few = len(names) <= _FEW_CLASSES
    width, height = (1.1, 0.9) if has_few else (0.4, 0.35)
    margin = 0.08 * max(map(_count_columns, names))
    size = (width * len(names) + 1 + margin, height * len(names) + 1 + margin / (2 if has_few else 1))
    shares = confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    shown = np.argwhere(np.ones_like(confusion) if has_few else confusion)
    with plain_text():
        figure = Figure(figsize=size, layout="constrained")
        axes = figure.subplots()
        axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto", interpolation="none")
        for true, predicted in shown if len(shown) <= _MAX_COUNTS else ():
            shade = "white" if shares[true, predicted] > 0.5 else "black"
            axes.text(predicted, true, str(confusion[true, predicted]), ha="center", va="center", color=shade)
        ticks = range(len(names))
        axes.set(xlabel="predicted", ylabel="true")
        axes.set_xticks(ticks, names, rotation=30 if has_few else 90, ha="right" if has_few else "center")
        axes.set_yticks(ticks, names)
        return to_svg(figure)


def draw_reliability(answers: Answers) -> str:
    """Draw the accuracy over the probability of the answer, by bins. A calibrated network is on the diagonal."""
    top1 = answers.probabilities.max(axis=1)
    is_correct = answers.probabilities.argmax(axis=1) == answers.class_indices
    bins = calibration_bins(top1)
    counts = np.bincount(bins, minlength=NUM_CALIBRATION_BINS)
    figure = Figure(figsize=(5, 5), layout="constrained")
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color="0.6", linestyle="--", label="perfectly calibrated")
    centers = (np.arange(NUM_CALIBRATION_BINS) + 0.5) / NUM_CALIBRATION_BINS
    accuracy = np.bincount(bins, weights=is_correct, minlength=NUM_CALIBRATION_BINS) / np.maximum(counts, 1)
    axes.bar(centers, accuracy, 0.9 / NUM_CALIBRATION_BINS, alpha=0.7, label="accuracy")
    for center, share, count in zip(centers, accuracy, counts, strict=True):
        if count:
            axes.text(center, share + 0.01, str(count), ha="center", fontsize=7)
    axes.set(xlabel="probability of the answer", ylabel="share that is right", xlim=(0, 1), ylim=(0, 1.08))
    axes.legend(loc="upper left")
    return to_svg(figure)


def to_svg(figure: Figure) -> str:
    """Return the figure as an SVG document. The same figure gives the same text."""
    stream = io.StringIO()
    with plain_text(), rc_context({"svg.hashsalt": "flowers", "svg.fonttype": "none"}):
        figure.savefig(stream, format="svg", metadata={"Date": None})
    return stream.getvalue()


@contextmanager
def plain_text() -> Iterator[None]:
    """Take every text of a figure as it is. The document holds the text, so missing glyphs need no warning."""
    with rc_context({"text.parse_math": False, "text.usetex": False}), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        yield


def _shorten(name: str) -> str:
    half = _MAX_NAME_LENGTH // 2
    return name if len(name) <= _MAX_NAME_LENGTH else f"{name[:half]}…{name[-half + 1 :]}"


def _count_columns(name: str) -> int:
    return sum(2 if unicodedata.east_asian_width(character) in "WF" else 1 for character in name)
