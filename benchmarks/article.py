"""The article's experiment on this machine, and its table: `python benchmarks/article.py FOLDER`.

Runs `flowers train --recipe article` on each device there is, into a store and run folders of its own, and writes
`benchmarks/results/article.json`: device, seconds per epoch, accuracy on the test part, and the machine in words.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from service.cli.machine import describe_cpu, describe_memory, find_packages
from service.engines.select import list_driver_gpus

RESULTS = Path(__file__).with_name("results")


def describe_machine() -> dict[str, object]:
    """Cores, vector extensions, memory and GPUs, in words; no name, no path."""
    return {
        "cpu": describe_cpu(),
        "memory": describe_memory().get("total"),
        "gpu": list_driver_gpus() or "none",
        "packages": {name: version for name, version in find_packages().items() if version},
    }


def main() -> None:
    """Train, print the table, write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="the photographs, one folder per class")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="flowers-article-") as scratch:
        command = [sys.executable, "-m", "service", "train", str(arguments.folder), "--recipe", "article", "--json"]
        places = ["--model-store", f"{scratch}/store", "--runs", f"{scratch}/runs"]
        process = subprocess.run([*command, *places], stdout=subprocess.PIPE, text=True, check=True)
    results = [{key: value for key, value in row.items() if key != "run"} for row in json.loads(process.stdout)]
    RESULTS.mkdir(exist_ok=True)
    text = json.dumps({"machine": describe_machine(), "results": results}, indent=1) + "\n"
    (RESULTS / "article.json").write_text(text, encoding="utf-8")
    print("| device | seconds per epoch | test accuracy |\n|---|---|---|")
    for row in results:
        print(f"| {row['device']} | {row['seconds_per_epoch']:.0f} | {100 * row['test_accuracy']:.2f} % |")


if __name__ == "__main__":
    main()
