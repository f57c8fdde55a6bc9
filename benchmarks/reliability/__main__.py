"""One experiment, with its promises beside the measured figures.

    python -m benchmarks.reliability EXPERIMENT [--times 3] [--scale 6] [--quick]

EXPERIMENT is one of reload, versions, overload, rollout, machines, soak, neighbours, explanations, client and fuzz.

It needs Linux and a machine that does nothing else. `rollout` and `machines` need HAProxy, which is Debian's package
`haproxy`. The exit code is 1 when a promise was not kept. Of several times each promise has its median. The results go
to `benchmarks/results/reliability-NAME.json`, or with `--engine savedmodel` to `reliability-NAME-savedmodel.json`.
`--quick` is for trying the scripts, and keeps none. `--scale` makes an experiment longer.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict

from benchmarks.machine import RESULTS, describe_machine
from benchmarks.reliability import (
    client,
    explanations,
    fuzz,
    machines,
    neighbours,
    overload,
    reload,
    rollout,
    soak,
    versions,
)
from benchmarks.reliability.replica import Result

EXPERIMENTS = {
    "reload": reload.measure,
    "versions": versions.measure,
    "overload": overload.measure,
    "rollout": rollout.measure,
    "machines": machines.measure,
    "soak": soak.measure,
    "neighbours": neighbours.measure,
    "explanations": explanations.measure,
    "client": client.measure,
    "fuzz": fuzz.measure,
}


def median_of(results: Sequence[Result]) -> Result:
    """Return each promise of an odd number of results at its median, or at its worst where nothing is allowed."""
    promises = []
    for same in zip(*(result.promises for result in results), strict=True):
        ordered = sorted(same, key=lambda promise: promise.measured)
        promises.append(ordered[-1 if ordered[0].bound == "at most 0" else len(results) // 2])
    return Result(promises, {"times": [{"promises": r.promises, "figures": r.figures} for r in results]})


def main() -> int:
    """Return 0 when every promise was kept."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.reliability", description=__doc__)
    parser.add_argument("name", choices=EXPERIMENTS)
    parser.add_argument("--times", type=int, default=1, choices=(1, 3, 5), help="how often")
    parser.add_argument("--scale", type=float, default=1.0, help="length, as a multiple of the usual one")
    parser.add_argument("--quick", action="store_true", help="a tenth of the time or of the requests")
    parser.add_argument("--engine", default="auto", help="as of `flowers serve`")
    arguments = parser.parse_args()
    scale = 0.1 if arguments.quick else arguments.scale
    results = [EXPERIMENTS[arguments.name](scale, arguments.engine) for _ in range(arguments.times)]
    result = results[0] if len(results) == 1 else median_of(results)
    for promise in result.promises:
        print(
            f"{'kept' if promise.is_kept else 'NOT KEPT':8}  {promise.text}: {promise.measured} (bound {promise.bound})"
        )
    if not arguments.quick:
        kept = {"machine": describe_machine(), "engine": arguments.engine, **asdict(result)}
        name = arguments.name if arguments.engine == "auto" else f"{arguments.name}-{arguments.engine}"
        (RESULTS / f"reliability-{name}.json").write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
    else:
        print(json.dumps(result.figures, indent=1))
    return int(not all(promise.is_kept for promise in result.promises))


if __name__ == "__main__":
    sys.exit(main())
