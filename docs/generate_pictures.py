"""The pictures of the shipped model: `python docs/generate_pictures.py RUN`, with the run folder that it came from."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from service.evaluation.figures import draw_confusion, to_svg
from service.evaluation.metrics import ClassMetrics, Evaluation

DOCS = Path(__file__).parent
RUNS = DOCS.parent / "benchmarks" / "results" / "in_memory.json"


def draw_patience(document: dict[str, Any]) -> str:
    """Accuracy and loss on the validation part against the length of the training, as SVG."""
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


def main() -> None:
    """Write what longer trainings gave, and the shipped model's confusion matrix on the test part, beside this file."""
    document = json.loads(RUNS.read_text(encoding="utf-8"))
    (DOCS / "patience.svg").write_text(draw_patience(document), encoding="utf-8")
    test = json.loads((Path(sys.argv[1]) / "published.json").read_text(encoding="utf-8"))["test"]
    test["per_class"] = tuple(ClassMetrics(**one) for one in test["per_class"])
    test["confusion"] = np.array(test["confusion"])
    (DOCS / "shipped-confusion.svg").write_text(draw_confusion(Evaluation(**test)), encoding="utf-8")


if __name__ == "__main__":
    main()
