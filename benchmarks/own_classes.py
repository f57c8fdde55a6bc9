"""Training on a few photographs of one's own classes, in several ways.

    python benchmarks/own_classes.py FOLDER --ways frozen tuned --per-class 20 60 200

The photographs are drawn from the classes daisy, roses and tulips of FOLDER, or from all with `--all-classes`. The
version is measured on all others of these classes, which its training has not seen. Minutes are those of the whole
command. Milliseconds are those of one image on one core of ONNX Runtime, and MB the size of its file. Each training
adds a row to `benchmarks/results/own_classes.json`, or replaces that of the same way, number, classes, seed and limit.

An AlexNet takes hours with its own number of epochs. `--minutes` gives it as much as fits.
"""

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from machine import RESULTS, describe_machine

from service.engines.engine import EngineInfo
from service.engines.onnx_runtime import OnnxRuntimeEngine
from service.store.layout import CPU_MODEL_FILES
from service.store.verify import verify_version

THREE = ("daisy", "roses", "tulips")
WAYS = {
    "alexnet": ("--recipe", "default", "--teacher", "none"),
    "alexnet taught": ("--recipe", "default"),
    "frozen": ("--recipe", "transfer", "--epochs", "0"),
    "tuned": ("--recipe", "transfer"),
}
"""Ways to train, as flags. `tuned` leaves the layers frozen where that is better, or the validation part too small."""

_KEY = ("way", "classes", "per_class", "seed", "epochs", "limit_minutes")


def share_out(source: Path, classes: tuple[str, ...], per_class: int, seed: int, mine: Path, others: Path) -> None:
    """Link so many photographs of each class into `mine`, and the rest into `others`."""
    for label in classes:
        paths = sorted((source / label).glob("*.jpg"))
        chosen = set(random.Random(seed).sample(paths, per_class))  # noqa: S311 - no secret
        for path in paths:
            folder = (mine if path in chosen else others) / label
            folder.mkdir(parents=True, exist_ok=True)
            (folder / path.name).symlink_to(path.resolve())


def flowers(*words: str) -> Any:
    """Return the JSON that a command prints. Exit code 1 counts, as a photograph may be unreadable."""
    command = [sys.executable, "-m", "service", *words, "--json"]
    return json.loads(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False).stdout)


def measure_engines(version: Path) -> dict[str, Any]:
    """Return milliseconds an image and megabytes of each network for ONNX Runtime."""
    verified = verify_version(version)
    figures: dict[str, Any] = {"ms": {}, "mb": {}}
    image = np.random.default_rng(0).integers(0, 256, (1, 224, 224, 3), np.uint8)
    for precision, file in CPU_MODEL_FILES.items():
        if file not in verified.digests:
            continue
        choice = EngineInfo("onnxruntime", "cpu", precision, "the benchmark")
        engine = OnnxRuntimeEngine(verified.read(file), choice, version=version.name, threads=1)
        times = []
        for _ in range(60):
            began = time.perf_counter()
            engine.run(image)
            times.append(time.perf_counter() - began)
        figures["ms"][precision] = 1000 * statistics.median(times)
        figures["mb"][precision] = len(verified.read(file)) / 1e6
    return figures


def measure(
    folder: Path, way: str, classes: tuple[str, ...], per_class: int, seed: int, minutes: float | None
) -> dict[str, Any]:
    """Train in one way, and return the row."""
    with tempfile.TemporaryDirectory(prefix="flowers-own-") as scratch:
        mine, others, store = Path(scratch, "mine"), Path(scratch, "others"), Path(scratch, "store")
        share_out(folder, classes, per_class, seed, mine, others)
        places = ("--model-store", str(store), "--runs", f"{scratch}/runs", "--seed", str(seed))
        limit = () if minutes is None else ("--minutes", str(minutes))
        began = time.perf_counter()
        (trained,) = flowers("train", str(mine), *places, *WAYS[way], *limit)
        took = (time.perf_counter() - began) / 60
        version = store / "mine" / str(trained["version"])
        found = flowers("evaluate", str(others), "--model-store", str(store), "--model", "mine")
        recipe = verify_version(version).metadata.recipe
        return {
            "way": way, "classes": len(classes), "per_class": per_class, "seed": seed, "limit_minutes": minutes,
            "minutes": took, "epochs": trained["epochs"], "is_tuned": recipe.get("is_tuned"),
            **{key: found[key] for key in (
                "accuracy", "accuracy_low", "accuracy_high", "num_correct", "num_photographs",
                "expected_calibration_error",
            )},
            **measure_engines(version),
        }  # fmt: skip


def keep(row: dict[str, Any]) -> None:
    """Add a row to the figures, in place of a like one."""
    file = RESULTS / "own_classes.json"
    rows = json.loads(file.read_text(encoding="utf-8"))["results"] if file.exists() else []
    others = [other for other in rows if any(other[key] != row[key] for key in _KEY)]
    document = {"machine": describe_machine(), "results": sorted([*others, row], key=_sort_key)}
    file.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


def _sort_key(row: dict[str, Any]) -> tuple[Any, ...]:
    return row["classes"], row["per_class"], list(WAYS).index(row["way"]), row["limit_minutes"] or 0, row["seed"]


def main() -> None:
    """Train and measure in each way. Print and write the rows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="the photographs, one folder per class")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=["frozen", "tuned"])
    parser.add_argument("--per-class", type=int, nargs="+", default=[60])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--all-classes", action="store_true", help="not only daisy, roses and tulips")
    parser.add_argument("--minutes", type=float, help="limit of each training")
    asked = parser.parse_args()
    os.environ.setdefault("PYTHONPATH", str(Path(__file__).resolve().parent.parent))
    every = tuple(sorted(path.name for path in asked.folder.iterdir() if path.is_dir()))
    for seed in asked.seeds:
        for per_class in asked.per_class:
            for way in asked.ways:
                row = measure(asked.folder, way, every if asked.all_classes else THREE, per_class, seed, asked.minutes)
                line = f"{way}, {per_class} a class, seed {seed}: {row['accuracy']:.1%} in {row['minutes']:.1f} min"
                print(line, file=sys.stderr, flush=True)
                keep(row)


if __name__ == "__main__":
    main()
