"""Accuracy of means of two versions' weights, of which the second went on from the first.

    python -m benchmarks.blend FOLDER OTHERS FIRST SECOND

FOLDER has class folders. OTHERS has a folder of photographs without any of the classes for each source. FIRST and
SECOND are folders of two versions. The weights of SECOND are a mean of those of FIRST and of the trained ones. So the
trained ones are known, and so is every other mean. Each mean is measured on the test part of SECOND, as
`benchmarks.robustness` and `benchmarks.none_of_these` do. The results go to `benchmarks/results/blend.json`.
"""

import argparse
import json
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.machine import RESULTS, describe_machine
from benchmarks.robustness import CHANGES, Labelled, list_part, make_squares
from service.data.outliers import list_outliers
from service.engines.engine import Scores
from service.engines.open_version import ServedVersion, open_stored
from service.engines.wish import EngineWish
from service.evaluation.none_of_these import find_confident
from service.imaging.pixels import Pixels
from service.networks.alexnet import NETWORKS
from service.ranking import ConfidentRule
from service.training.calibrate import calibrate, energies, softmax
from service.training.export.saved_model import read_saved_weights
from service.training.fit import predict
from service.training.trained_network import on_pixels

SHARES = (0.0, 0.3, 0.4, 0.5, 0.6, 1.0)
"""Shares of the first version's weights."""


def measure(
    opened: ServedVersion, weights: list[NDArray[Any]], photographs: Labelled, changed: dict[str, Pixels],
    sources: dict[str, Pixels], held_out: list[str],
) -> dict[str, Any]:  # fmt: skip
    """Return accuracies, the log loss after calibration, and the shares of the sources that are not confident."""
    network = NETWORKS[opened.metadata.network.name](len(opened.metadata.class_names))
    network.set_weights(weights)
    made, truth = opened.metadata.preprocessing, photographs.class_indices
    model = on_pixels(network, made.scale, made.offset)
    logits = {name: predict(model, squares)["logits"] for name, squares in changed.items()}
    calibration = calibrate(logits["as it is"], truth, "test")
    rule = ConfidentRule(calibration.confidence_threshold, calibration.max_energy)

    def flag(some: NDArray[np.float32]) -> NDArray[np.bool_]:
        probabilities = softmax(some, calibration.temperature).astype(np.float32)
        return ~find_confident(rule, Scores(probabilities, energies(some)))

    flagged = {name: flag(predict(model, squares)["logits"]) for name, squares in sources.items()}
    of_truth = calibration.probabilities[np.arange(len(truth)), truth]
    return {
        "accuracy": {name: float((some.argmax(axis=1) == truth).mean()) for name, some in logits.items()},
        "log_loss": float(-np.log(of_truth).mean()),
        "flagged of all sources": float(np.concatenate(list(flagged.values())).mean()),
        "flagged of held-out sources": float(np.concatenate([flagged[name] for name in held_out]).mean()),
        "errors_flagged": float(flag(logits["as it is"])[logits["as it is"].argmax(axis=1) != truth].mean()),
    }


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.blend", description=__doc__)
    parser.add_argument("folder", type=Path, help="the photographs, one folder per class")
    parser.add_argument("others", type=Path, help="photographs of none of the classes, one folder per source")
    parser.add_argument("first", type=Path, help="folder of the version that the training began with")
    parser.add_argument("second", type=Path, help="folder of the version that it made")
    asked = parser.parse_args()
    store, model, version = asked.second.parent.parent, asked.second.parent.name, int(asked.second.name)
    with closing(open_stored(store, model, EngineWish("savedmodel", "cpu"), version)) as opened:
        recipe = opened.metadata.recipe
        photographs = list_part(opened, asked.folder, "test")
        changed = {name: make_squares(opened, photographs.paths, change) for name, change in CHANGES.items()}
        sources = {name: make_squares(opened, paths) for name, paths in list_outliers(asked.others).items()}
        first, mixed = read_saved_weights(asked.first), read_saved_weights(asked.second)
        taken = recipe["begun_share"]
        trained = [(whole - taken * one) / (1 - taken) for one, whole in zip(first, mixed, strict=True)]
        rows = []
        for share in SHARES:
            weights = [share * one + (1 - share) * other for one, other in zip(first, trained, strict=True)]
            found = measure(opened, weights, photographs, changed, sources, recipe["held_out_sources"])
            rows.append({"share": share, **found})
            print(json.dumps(rows[-1]), flush=True)
    document = {"machine": describe_machine(), "version": version, "rows": rows}
    (RESULTS / "blend.json").write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
