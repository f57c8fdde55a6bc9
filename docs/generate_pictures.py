"""The pictures of the shipped model: `python docs/generate_pictures.py RUN`, with the run folder that it came from."""

import json
import sys
from pathlib import Path

import numpy as np

from service.evaluation.figures import draw_confusion
from service.evaluation.metrics import ClassMetrics, Evaluation
from service.training.checkpoint import Epoch
from service.training.figures import draw_curves

DOCS = Path(__file__).parent


def main() -> None:
    """Write the curves of the training and the confusion matrix on the test part beside this file."""
    run = Path(sys.argv[1])
    history = [Epoch(**row) for row in json.loads((run / "history.json").read_text(encoding="utf-8"))]
    (DOCS / "shipped-curves.svg").write_text(draw_curves(history), encoding="utf-8")
    test = json.loads((run / "published.json").read_text(encoding="utf-8"))["test"]
    test["per_class"] = tuple(ClassMetrics(**one) for one in test["per_class"])
    test["confusion"] = np.array(test["confusion"])
    (DOCS / "shipped-confusion.svg").write_text(draw_confusion(Evaluation(**test)), encoding="utf-8")


if __name__ == "__main__":
    main()
