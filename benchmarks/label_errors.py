"""How many wrong labels `flowers evaluate --label-errors` finds: `python -m benchmarks.label_errors FOLDER`.

A share of the labels is changed to another class by chance. The result is the share of these among the first
photographs of the list, for several seeds. Some labels of a real folder are wrong before. They count against the list.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

import service  # noqa: F401 - it prepares keras
from benchmarks.machine import RESULTS, describe_machine
from service.data.batches import load_squares
from service.data.check import check_folder
from service.data.folder import read_folder
from service.imaging.limits import ImageLimits, ResizeRule
from service.training.features import extract_features
from service.training.label_errors import NETWORK, assign_folds, cross_validate_layer, rank_suspects
from service.training.transfer import features_model

_FLIPPED, _LOOKED_AT = 0.03, 0.05
_NUM_SEEDS = 5


def measure(folder: Path) -> dict[str, Any]:
    """Return the share that is found for each seed."""
    check = check_folder(read_folder(folder))
    num_classes, num_photographs = len(check.class_names), len(check.photographs)
    began = time.perf_counter()
    squares = load_squares(check.photographs, check.class_names, ResizeRule(), ImageLimits())
    with tempfile.TemporaryDirectory() as scratch:
        model = features_model(NETWORK)
        features = extract_features(model, np.asarray(squares.images), Path(scratch), lambda _: None)
    seconds = time.perf_counter() - began
    rows = []
    for seed in range(_NUM_SEEDS):
        random = np.random.default_rng(seed)
        flipped = random.choice(num_photographs, round(_FLIPPED * num_photographs), replace=False)
        labels = squares.class_indices.copy()
        labels[flipped] = (labels[flipped] + random.integers(1, num_classes, len(flipped))) % num_classes
        probabilities = cross_validate_layer(features, labels, assign_folds(check), num_classes)
        suspects = rank_suspects(check.photographs, probabilities, labels, check.class_names)
        changed = {check.photographs[place].path for place in flipped}
        first = suspects[: round(_LOOKED_AT * num_photographs)]
        likely = [suspect for suspect in suspects if suspect.is_likely]
        rows.append(
            {
                "seed": seed,
                "found": sum(suspect.path in changed for suspect in first) / len(changed),
                "likely": len(likely),
                "likely_and_changed": sum(suspect.path in changed for suspect in likely),
            }
        )
    return {
        "photographs": num_photographs,
        "changed": _FLIPPED,
        "looked_at": _LOOKED_AT,
        "seconds_of_features": round(seconds, 1),
        "seeds": rows,
    }


def main() -> None:
    """Print the result and keep it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="folder of class folders")
    text = json.dumps({"machine": describe_machine(), **measure(parser.parse_args().folder)}, indent=2)
    (RESULTS / "label_errors.json").write_text(text + "\n", encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
