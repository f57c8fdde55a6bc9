"""New version of the served network with its test part measured again.

    python -m benchmarks.remeasure FOLDER

It is for pixels that have changed under weights that have not. Every file but `metadata.json` and `SHA256SUMS` is
copied byte for byte. Measured again are the figures of the test part, and those of the networks for onnxruntime beside
the SavedModel. Temperature and threshold stay. They come from other networks, which are not in the version.
"""

import argparse
import shutil
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from service.data.folder import read_folder
from service.engines.engine import Scores
from service.engines.open_version import load_engine, open_stored
from service.engines.wish import EngineWish
from service.evaluation.folder import evaluate_folder, find_differences, stated_metrics
from service.evaluation.score import score_photographs
from service.imaging.limits import ImageLimits
from service.store.layout import METADATA_FILE
from service.store.metadata import Metadata
from service.store.publish import publish_version
from service.training.export.light_model import compare

LIMITS = ImageLimits()


def measure(folder: Path, store: Path, model: str) -> tuple[Path, Metadata]:
    """Return the served version's folder and its new metadata."""
    with closing(open_stored(store, model, EngineWish("savedmodel", "cpu"))) as local:
        version, metadata = local.verified.folder, local.metadata
        test = evaluate_folder(local, read_folder(folder), LIMITS, part="test")
        paths, truth = test.answers.paths, test.answers.class_indices.astype(np.int64)
        cpu_models = []
        for stated in metadata.cpu_models:
            engine = load_engine(local.verified, EngineWish("onnxruntime", "cpu", stated.precision))
            found = score_photographs(engine, paths, local.rule, LIMITS)
            engine.close()
            scores, expected = Scores(found.probabilities), Scores(test.answers.probabilities)
            cpu_models.append(compare(stated.precision, scores, expected, truth, quantised=stated.quantised))
    if test.unscored or any(model.refused for model in cpu_models):
        raise SystemExit(f"Nothing is published: {[*test.unscored, *cpu_models]}")
    anew = stated_metrics(test.evaluation, "test")
    for before in metadata.metrics:
        if before.part == anew.part:
            print(*find_differences(before, test.evaluation) or ("to the photograph as stated",), sep="\n")
            print(f"calibration error: {before.expected_calibration_error} -> {anew.expected_calibration_error}")
    metrics = [anew if before.part == anew.part else before for before in metadata.metrics]
    created = datetime.now(UTC).replace(microsecond=0)
    return version, metadata.model_copy(update={"metrics": metrics, "cpu_models": cpu_models, "created": created})


def main() -> None:
    """Measure, publish."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.remeasure", description=__doc__)
    parser.add_argument("folder", type=Path, help="the photographs, one folder per class")
    parser.add_argument("--model-store", type=Path, default=Path("model_store"))
    parser.add_argument("--model", default="flowers")
    asked = parser.parse_args()
    version, metadata = measure(asked.folder, asked.model_store, asked.model)
    with publish_version(asked.model_store, asked.model) as draft:
        shutil.copytree(version, draft.folder, dirs_exist_ok=True)
        (draft.folder / METADATA_FILE).write_text(metadata.model_dump_json(indent=1) + "\n", encoding="utf-8")
    print(f"{asked.model} {draft.version}")


if __name__ == "__main__":
    main()
