"""Throughput of `flowers predict --ray` beside the single process on the same cores, and the figures of a large job.

    python benchmarks/scoring.py FOLDER --photographs 8000 --rounds 5

Both score the same names of the photographs in FOLDER, in turns. The time of Ray is that between the first and the last
result, with the first results left out. The whole time has the start of Ray. The results are in
`benchmarks/results/scoring.json`. On a busy machine, only the ratio per second on a core counts.
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from machine import RESULTS, describe_machine

from service.engines.open_version import open_stored
from service.engines.wish import EngineWish
from service.evaluation.score import score_each
from service.imaging.limits import ImageLimits
from service.libraries import keep_ray_quiet
from service.scoring.actor import Job, PartScorer, digest_version, pack_part
from service.scoring.parts import Part, split_parts
from service.store.verify import verify_version
from service.store.versions import find_version

STORE, MODEL, FLOOR = Path("model_store"), "flowers", 0.75


@dataclass(frozen=True)
class Timing:
    """Seconds of a whole run, and photographs a second without the start: of time, and of time on a core."""

    total_s: float
    photographs_per_s: float
    photographs_per_core_s: float


def link_photographs(folder: Path, target: Path, num_photographs: int) -> list[str]:
    """Give the photographs as many names as are wanted. Read each, so that the page cache holds it."""
    originals = sorted(folder.glob("*/*.jpg"))
    paths = [target / f"{number:06d}.jpg" for number in range(num_photographs)]
    for number, path in enumerate(paths):
        path.symlink_to(originals[number % len(originals)].resolve())
        path.read_bytes()
    return [str(path) for path in paths]


def sum_core_s(pid: int | str = "self") -> float:
    """Return the seconds that a process, and all below it, have been on a core. Those of Ray itself are among them."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        children = " ".join(task.read_text(encoding="ascii") for task in Path(f"/proc/{pid}/task").glob("*/children"))
    except OSError:  # it has ended in between
        return 0.0
    own = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return own + sum(sum_core_s(child) for child in children.split())


def score_alone(paths: list[str]) -> Timing:
    """Score as `flowers predict` does."""
    begun = time.perf_counter()
    with closing(open_stored(STORE, MODEL, EngineWish(device="cpu"))) as opened:
        loaded, core_s = time.perf_counter(), sum_core_s()
        num_rows = sum(1 for _ in score_each(opened.engine, [Path(path) for path in paths], opened.rule, ImageLimits()))
        ended, core_s = time.perf_counter(), sum_core_s() - core_s
    assert num_rows == len(paths)
    return Timing(ended - begun, len(paths) / (ended - loaded), len(paths) / core_s)


def make_job(output: str) -> Job:
    """Describe the work of an actor on one core."""
    verified = verify_version(find_version(STORE, MODEL).folder)
    wish, version = EngineWish(device="cpu", threads=1), int(verified.folder.name)
    return Job(STORE.absolute(), MODEL, version, digest_version(verified), wish, ImageLimits(), 2, output)


def score_on_ray(parts: list[Part], output: str) -> Timing:
    """Score as `flowers predict --ray` does on this machine."""
    from service.scoring.ray import connected, score_parts, size_actor  # here, after `keep_ray_quiet`

    begun = time.perf_counter()
    with connected(""):
        times, core_s, counts = [], [], []
        for result in score_parts(parts, make_job(output), size_actor("cpu", 0)):
            times.append(time.perf_counter())
            core_s.append(sum_core_s())
            counts.append(result.num_photographs)
    ended = time.perf_counter()
    assert sum(counts) == sum(len(part.paths) for part in parts)
    first = len(parts) // 8  # until all actors are at work
    num_photographs = sum(counts[first + 1 :])
    return Timing(
        ended - begun, num_photographs / (times[-1] - times[first]), num_photographs / (core_s[-1] - core_s[first])
    )


def measure_actor(paths: list[str], rows_per_file: int) -> dict[str, Any]:
    """Measure an actor without its cluster: seconds to open the version, memory, bytes of a row."""
    with tempfile.TemporaryDirectory() as output:
        begun = time.perf_counter()
        scorer = PartScorer(make_job(output))
        scorer(pack_part(Part(0, tuple(paths[:1]))))
        opened = time.perf_counter()
        scorer(pack_part(Part(1, tuple(paths[:rows_per_file]))))
        status = Path("/proc/self/status").read_text(encoding="ascii")
        peak_kb = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))
        num_bytes = (Path(output) / "part-000001.parquet").stat().st_size
    return {
        "open_version_s": opened - begun,
        "peak_memory_mib_without_ray": peak_kb / 1024,
        "bytes_per_row": num_bytes / rows_per_file,
    }


def spread(values: list[float]) -> dict[str, float]:
    """Return median, minimum and maximum."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="the photographs, one folder per class")
    parser.add_argument("--photographs", type=int, default=8000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--rows-per-file", type=int, default=256)
    asked = parser.parse_args()
    keep_ray_quiet("")
    alone, ray = [], []
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        photographs = Path(folder) / "photographs"
        photographs.mkdir()
        paths = link_photographs(asked.folder, photographs, asked.photographs)
        actor = measure_actor(paths, asked.rows_per_file)
        mean_bytes = statistics.fmean(Path(path).stat().st_size for path in paths)
        for number in range(asked.rounds):
            alone.append(score_alone(paths))
            ray.append(score_on_ray(split_parts(paths, asked.rows_per_file), f"{folder}/scores-{number}"))
            print(f"round {number + 1}: {alone[-1]} {ray[-1]}", flush=True)
    core_ratios = [
        ours.photographs_per_core_s / theirs.photographs_per_core_s for ours, theirs in zip(ray, alone, strict=True)
    ]
    ratios = [ours.photographs_per_s / theirs.photographs_per_s for ours, theirs in zip(ray, alone, strict=True)]
    result = {
        "machine": describe_machine(),
        "load_average": os.getloadavg(),
        "photographs": len(paths),
        "rows_per_file": asked.rows_per_file,
        "bytes_per_photograph": mean_bytes,
        "single_process": {name: spread([vars(run)[name] for run in alone]) for name in vars(alone[0])},
        "ray": {name: spread([vars(run)[name] for run in ray]) for name in vars(ray[0])},
        "start_of_ray_s": spread([run.total_s - len(paths) / run.photographs_per_s for run in ray]),
        "ratio": spread(ratios),
        "ratio_per_core_s": spread(core_ratios),
        "floor": FLOOR,
        "actor": actor,
    }
    (RESULTS / "scoring.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=1))
    assert min(map(statistics.median, (ratios, core_ratios))) >= FLOOR


if __name__ == "__main__":
    main()
