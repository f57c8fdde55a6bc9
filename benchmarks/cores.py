"""Throughput of one replica on more and more cores, on Linux.

    python -m benchmarks.cores [--cores 1 2 4 8]

The service is held to so many cores. It has the shipped model on the engine that `auto` takes. Four generators ask on
the last four cores of the machine, in closed loops. They have sixteen connections for each core of the service.
`benchmarks/results/cores.json` gets answers per second and latencies.
"""

import argparse
import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from benchmarks.machine import RESULTS, describe_machine
from benchmarks.reliability.replica import replica, store_of_its_own

NUM_GENERATORS, CONNECTIONS_PER_CORE = 4, 16


def measure(num_cores: int, seconds: float, image: Path | None) -> dict[str, Any]:
    """Return answers per second of all generators, their worst latencies in ms, and errors by kind."""
    every = sorted(os.sched_getaffinity(0))
    connections = num_cores * CONNECTIONS_PER_CORE // NUM_GENERATORS
    flags = ["--connections", str(connections), "--duration-s", str(seconds), "--warm-up-s", "1", "--json"]
    if image:
        flags += ["--image", str(image)]
    with store_of_its_own() as store, replica(store, cores=every[:num_cores]) as service:
        command = [sys.executable, "-m", "service", "bench", service.url, *flags]
        generators = [
            subprocess.Popen(["taskset", "-c", str(core), *command], stdout=subprocess.PIPE, text=True)
            for core in (every * NUM_GENERATORS)[-NUM_GENERATORS:]
        ]
        try:
            runs = [json.loads(generator.communicate()[0])["runs"][0] for generator in generators]
        finally:
            for generator in generators:
                generator.kill()
    return {
        "cores": num_cores,
        "connections": connections * NUM_GENERATORS,
        "answers_per_s": round(sum(run["answers_per_s"] for run in runs)),
        "p50_ms": round(max(run["latency_ms"]["p50"] for run in runs), 1),
        "p99_ms": round(max(run["latency_ms"]["p99"] for run in runs), 1),
        "errors": sum((Counter(run["errors"]) for run in runs), Counter()),
    }


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cores", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--seconds", type=float, default=5.0, help="for each measurement")
    parser.add_argument("--image", type=Path, help="a photograph or a folder of them; without it a drawn flower")
    parser.add_argument("--smoke", action="store_true", help="one core, one second; nothing is written")
    asked = parser.parse_args()
    if asked.smoke:
        print(json.dumps(measure(1, 1, asked.image)))
        return
    most = len(os.sched_getaffinity(0)) - NUM_GENERATORS
    if max(asked.cores) > most:
        parser.error(f"the generators want {NUM_GENERATORS} cores for themselves: --cores can be {most} at most here")
    rows = [measure(num_cores, asked.seconds, asked.image) for num_cores in asked.cores]
    text = json.dumps({"machine": describe_machine(), "results": rows}, indent=1) + "\n"
    print(text)
    (RESULTS / "cores.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
