"""Plots of the shipped model, from its results in `benchmarks/results`: `python -m docs.plot`."""

import json
from pathlib import Path
from typing import Any

import service  # noqa: F401 - before matplotlib, whose files it keeps in the cache folder

# isort: split
import numpy as np
from matplotlib.figure import Figure

from service.evaluation.metrics import ClassMetrics, Evaluation
from service.evaluation.plots import draw_confusion, to_svg
from service.training.checkpoint import Epoch
from service.training.cross_validation import mean_epoch
from service.training.plots import draw_curves

DOCS = Path(__file__).parent
RESULTS = DOCS.parent / "benchmarks" / "results"


def draw_patience(document: dict[str, Any]) -> str:
    """Draw accuracy and loss on the validation part against the length of the training, as SVG."""
    figure = Figure(figsize=(10, 4), layout="constrained")
    accuracies, losses = figure.subplots(1, 2)
    kinds = {
        (True, 1): "its features too, and its answers to the very mixtures",
        (False, 1): "its features too",
        (False, 0): "the teacher's answers",
    }
    for (is_matched, weight), label in kinds.items():
        runs = [
            run
            for run in document["runs"]
            if (run["answers_to_mixed_views"], run["feature_weight"]) == (is_matched, weight)
            and (run["network"], run["weight_decay"], run["learning_rate"]) == ("alexnet_v2", 0.02, 0.001)
        ]
        epochs = [run["epochs"] for run in runs]
        accuracies.plot(epochs, [100 * run["accuracy"] for run in runs], "o-", label=label)
        losses.plot(epochs, [run["log_loss"] for run in runs], "o-", label=label)
    accuracies.set(xlabel="epochs", ylabel="accuracy, %")
    losses.set(xlabel="epochs", ylabel="log loss at the best temperature")
    for axes in (accuracies, losses):
        axes.grid(alpha=0.3)
    losses.legend(title="AlexNet v2 learns", loc="upper right")
    return to_svg(figure)


def read_folds(document: dict[str, Any]) -> list[Epoch]:
    """Return the mean loss and accuracy of the networks of the cross-validation, every so many epochs."""
    histories = [[Epoch(**row) for row in document[f"fold-{number}"]["history"]] for number in range(4)]
    return [mean_epoch(rows) for rows in zip(*histories, strict=True)]


def read_evaluation(document: dict[str, Any]) -> Evaluation:
    """Return the evaluation that `flowers evaluate --json` printed."""
    figures = {key: value for key, value in document.items() if key in Evaluation.__annotations__}
    figures["per_class"] = tuple(ClassMetrics(**one) for one in figures["per_class"])
    return Evaluation(**figures | {"confusion": np.array(figures["confusion"])})


def main() -> None:
    """Write the plots of longer trainings, of the shipped model's curves and of its confusion matrix."""

    def read(name: str) -> dict[str, Any]:
        document: dict[str, Any] = json.loads((RESULTS / name).read_text(encoding="utf-8"))
        return document

    plots = {
        "patience.svg": draw_patience(read("in_memory.json")),
        "shipped-curves.svg": draw_curves(read_folds(read("in_memory-patient.json"))),
        "shipped-confusion.svg": draw_confusion(read_evaluation(read("flowers-9-test.json"))),
    }
    for name, plot in plots.items():
        (DOCS / "drawings" / name).write_text(plot, encoding="utf-8")


if __name__ == "__main__":
    main()
