"""Training on three classes of sixty photographs each, with and without a teacher.

    python benchmarks/own_classes.py FOLDER

The photographs are drawn from the data set. The version is measured on all others of these classes, which its training
has not seen. With the recipe's own epochs a seed takes about two hours on two cores. Each training adds a row to
`benchmarks/results/own_classes.json`. Rows of other seeds and lengths stay there.
"""

import argparse
import json
import random
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from machine import RESULTS, describe_machine

CLASS_NAMES = ("daisy", "roses", "tulips")
PER_CLASS = 60


def share_out(source: Path, mine: Path, others: Path, seed: int) -> None:
    """Link sixty photographs of each class into `mine`, and the rest into `others`."""
    for label in CLASS_NAMES:
        paths = sorted((source / label).glob("*.jpg"))
        chosen = set(random.Random(seed).sample(paths, PER_CLASS))  # noqa: S311 - no secret
        for path in paths:
            folder = (mine if path in chosen else others) / label
            folder.mkdir(parents=True, exist_ok=True)
            (folder / path.name).symlink_to(path.resolve())


def flowers(*words: str) -> Any:
    """Return the JSON that a command prints. Exit code 1 counts, as a photograph may be unreadable."""
    command = [sys.executable, "-m", "service", *words, "--json"]
    return json.loads(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False).stdout)


def main() -> None:
    """Train and evaluate with the teacher and without. Print and write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="the photographs, one folder per class")
    parser.add_argument("--epochs", type=int, default=320, help="the recipe `default` has 320")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--teachers", nargs="+", default=["efficientnet_lite2", "none"])
    asked = parser.parse_args()
    for seed in asked.seeds:
        with tempfile.TemporaryDirectory(prefix="flowers-own-") as scratch:
            mine, others = Path(scratch, "mine"), Path(scratch, "others")
            share_out(asked.folder, mine, others, seed)
            for teacher in asked.teachers:
                store = ("--model-store", f"{scratch}/{teacher}")
                places = (*store, "--runs", f"{scratch}/runs", "--seed", str(seed))
                flowers("train", str(mine), *places, "--teacher", teacher, "--epochs", str(asked.epochs))
                found = flowers("evaluate", str(others), *store, "--model", "mine")
                row = {"teacher": teacher, "epochs": asked.epochs, "seed": seed}
                row |= {key: found[key] for key in ("accuracy", "num_correct", "num_photographs")}
                print(f"{teacher}: {row['accuracy']:.1%} of {row['num_photographs']}", file=sys.stderr, flush=True)
                keep(row)


def keep(row: dict[str, Any]) -> None:
    """Add a row to the figures, in place of a like one."""
    file = RESULTS / "own_classes.json"
    rows = json.loads(file.read_text(encoding="utf-8"))["results"] if file.exists() else []
    others = [other for other in rows if any(other[key] != row[key] for key in ("teacher", "epochs", "seed"))]
    document = {
        "machine": describe_machine(),
        "classes": CLASS_NAMES,
        "photographs_per_class": PER_CLASS,
        "results": [*others, row],
    }
    file.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
