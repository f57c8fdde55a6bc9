"""The whole comparison, with its results as data, table and plots.

    python -m benchmarks.serving [PHOTOGRAPHS]

Run it when nothing else runs on the machine. PHOTOGRAPHS is a folder of class folders, such as the unpacked
flower_photos. Without it images are drawn. The first run makes environments and AlexNet v1 in the cache.

The first bodies are small photographs without colour profiles. The second are the same with theirs, unless the folder
has too few of them. The third are large photographs.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from PIL import ImageCms

from benchmarks.drawn import draw_folder
from benchmarks.serving.environments import installed_versions, lock_all
from benchmarks.serving.limits import measure_client, measure_limits
from benchmarks.serving.measure import ServerFailed, Stage, Timing, measure, python_of
from benchmarks.serving.models import FIRST, SHIPPED, store_of
from benchmarks.serving.photographs import (
    Photograph,
    enlarge,
    find_model,
    read_profiled,
    read_small,
    with_answers,
    with_profile,
    without_profile,
)
from benchmarks.serving.report import embed, summarise, write_report
from benchmarks.serving.servers import COMPARED, FASTAPI_DEF, FRONT_ENDS, OURS, REPOSITORY, SERVERS, Model, Server
from service.cli.doctor import describe_cpu, describe_memory, find_packages
from service.engines.wish import PrecisionWish

RESULTS = REPOSITORY / "benchmarks" / "results" / "serving.json"
README = REPOSITORY / "README.md"
PAGE = REPOSITORY / "docs" / "reference" / "speed.md"
SMALL = tuple(Stage("small", connections) for connections in (1, 8, 32, 64))
PROFILES = tuple(Stage("profiles", connections) for connections in (1, 32))
LARGE = tuple(Stage("large", connections) for connections in (1, 8))
PRECISIONS: tuple[PrecisionWish, ...] = ("auto", "float32")
_NUM_CANDIDATES, _NUM_LARGE = 100, 4
_QUIET_LOAD = 0.5


@dataclass(frozen=True)
class Plan:
    """Plan of the measurements. 12-megapixel photographs are asked in the first round alone, of the first model.

    `keeps_profiles` sends small photographs as the folder has them. `precisions` are those of the limits.
    """

    models: tuple[Model, ...]
    servers: tuple[Server, ...] = COMPARED
    rounds: int = 3
    small: tuple[Stage, ...] = SMALL
    profiles: tuple[Stage, ...] = PROFILES
    large: tuple[Stage, ...] = LARGE
    timing: Timing = field(default_factory=Timing)
    limits_s: float = 1.0
    precisions: tuple[PrecisionWish, ...] = PRECISIONS
    num_small: int = 20
    keeps_profiles: bool = False

    def starts(self) -> Iterator[tuple[int, Model, Server, tuple[Stage, ...]]]:
        """Yield rounds. Each has every model and server once, and begins with another server."""
        for number in range(self.rounds):
            first = number * 3 % len(self.servers)
            for model in self.models:
                for server in (*self.servers[first:], *self.servers[:first]):
                    is_large = number == 0 and model is self.models[0]
                    yield number, model, server, self.small + self.profiles + (self.large if is_large else ())


def compare(plan: Plan, photographs: Path, save_to: Path) -> dict[str, Any]:
    """Measure all of the plan. The file is written after each server, for a run that is cut short."""
    profiled = read_profiled(photographs, _NUM_CANDIDATES) if plan.profiles else []
    if plan.profiles and not profiled:
        _say(f"{photographs} has fewer than {_NUM_CANDIDATES} photographs with a colour profile: none is asked")
        plan = replace(plan, profiles=())
    found = profiled or read_small(photographs, _NUM_CANDIDATES)
    originals = {data if plan.keeps_profiles else without_profile(data): data for data in found}
    candidates = list(originals)
    results: dict[str, Any] = {
        "machine": {"cpu": describe_cpu(), "memory": describe_memory()["total"]},
        "load_average_before": os.getloadavg()[0],
        "commit": _commit(),
        "versions": _versions(plan.servers),
        "timing": vars(plan.timing),
        "keeps_profiles": plan.keeps_profiles,
        "client": measure_client(candidates[0], plan.limits_s or 0.3),
        "models": {},
        "skipped": [],
        "failed": [],
        "limits": [],
        "runs": [],
    }
    questions: dict[str, dict[str, list[Photograph]]] = {}
    for model in plan.models:
        small = with_answers(candidates, model, plan.num_small)
        questions[model.name] = {"small": small}
        if plan.profiles:
            bare = {originals[photograph.data]: photograph for photograph in small}
            tagged = with_answers(list(bare), model, plan.num_small)
            questions[model.name]["profiles"] = [one for one in tagged if one.is_like(bare[one.data])]
        if model is plan.models[0] and plan.large:
            enlarged = [enlarge(photograph.data) for photograph in small[: 2 * _NUM_LARGE]]
            questions[model.name]["large"] = with_answers(enlarged, model, _NUM_LARGE)
        results["models"][model.name] = _describe(model, questions[model.name])

    limits_of: set[tuple[int, str]] = set()
    for number, model, server, stages in plan.starts():
        if (number, model.name) not in limits_of:
            limits_of.add((number, model.name))
            for limits in _limits(plan, model, questions[model.name]["small"]):
                results["limits"].append({"round": number, "model": model.name, **limits})
        where = {"round": number, "model": model.name, "server": server.name}
        if reason := server.needs(model):
            results["skipped"].append({**where, "reason": reason})
            continue
        try:
            result = measure(server, model, questions[model.name], stages, plan.timing)
            results["runs"].append({**where, **result})
            _say(f"round {number + 1}, {model.name}, {server.name}: {_in_short(result)}")
        except ServerFailed as failure:
            results["failed"].append({**where, "reason": str(failure)})
            _say(f"round {number + 1}, {model.name}, {server.name}: {failure}")
        save_to.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    return results


def _limits(plan: Plan, model: Model, photographs: Sequence[Photograph]) -> Iterator[dict[str, Any]]:
    if not plan.limits_s:
        return
    data = [photograph.data for photograph in photographs]
    for precision in plan.precisions:
        limits = measure_limits(model.folder, data, plan.limits_s, engine="auto", precision=precision)
        yield {"choice": precision, **limits}


def _describe(model: Model, questions: dict[str, list[Photograph]]) -> dict[str, Any]:
    sizes = {
        size: {
            "count": len(photographs),
            "labels": sorted({photograph.label for photograph in photographs}),
            "mean_bytes": sum(len(photograph.data) for photograph in photographs) // len(photographs),
        }
        for size, photographs in questions.items()
    }
    return {"network": model.network, "version": model.version, "photographs": sizes}


def _in_short(result: dict[str, Any]) -> str:
    cells = [
        f"{cell['connections']}{'' if cell['size'] == 'small' else ' ' + cell['size']}: "
        + (f"{cell['answers_per_s']:g}/s" if cell["counts"] else f"does not count {cell['errors']}")
        for cell in result["cells"]
    ]
    return f"up in {result['cold_start_s']} s, {result['memory']['pss_mb']:.0f} MB, {', '.join(cells)}"


def _versions(servers: Sequence[Server]) -> dict[str, dict[str, str]]:
    ours = {name: version for name, version in find_packages().items() if version}
    peers = {server.environment: installed_versions(server.environment) for server in servers if server.environment}
    return {"python": {"python": sys.version.split()[0]}, "ours": ours, **peers}


def _commit() -> dict[str, Any]:
    def git(*arguments: str) -> str:
        command = ["git", "-C", str(REPOSITORY), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()

    return {"commit": git("rev-parse", "HEAD") or None, "changed": bool(git("status", "--porcelain"))}


def _say(sentence: str) -> None:
    print(sentence, file=sys.stderr, flush=True)


def _draw(folder: Path) -> Path:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    draw_folder(folder, photographs_per_class=_NUM_CANDIDATES // 5, size=(500, 333))
    for path in folder.glob("*/*.jpg"):
        path.write_bytes(with_profile(path.read_bytes(), profile))
    return folder


def _report(results: dict[str, Any], output: Path) -> None:
    """Print the report and write it beside the results. Put the kept results into the documents."""
    text = write_report(results, output)
    print(text)
    if output == RESULTS:
        for document, part in ((PAGE, text), (README, summarise(results))):
            folder = os.path.relpath(RESULTS.parent, document.parent)
            document.write_text(embed(part, document.read_text(encoding="utf-8"), folder), encoding="utf-8")


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.serving", description=__doc__)
    parser.add_argument("photographs", nargs="?", type=Path, help="folder of class folders; default: drawn images")
    how_much = parser.add_mutually_exclusive_group()
    how_much.add_argument("--quick", action="store_true", help="AlexNet v1 alone, two rounds: about 8 minutes")
    how_much.add_argument(
        "--smoke", action="store_true", help="ours and FastAPI def in this environment: seconds, proves the harness"
    )
    parser.add_argument(
        "--front-ends",
        choices=PRECISIONS,
        help="our decoder and engine behind our front end and others, in this precision: about 11 minutes",
    )
    how_much.add_argument("--lock", action="store_true", help="lock the peers' requirements anew (needs uv), and end")
    how_much.add_argument("--report", action="store_true", help="write tables and plots from --output, and end")
    how_much.add_argument("--install", action="store_true", help="make environments and v1, and end")
    parser.add_argument("--rounds", type=int, help="default 3; 9 of front ends")
    parser.add_argument("--seconds", type=float, help="of each measurement; default 2")
    parser.add_argument("--servers", help="only these, by name, separated by semicolons")
    parser.add_argument("--models", help=f"default {FIRST},{SHIPPED}")
    parser.add_argument("--model-store", type=Path, help="a store that has them all, instead of the cache's and ours")
    parser.add_argument("--output", type=Path, default=RESULTS, help="the results; table and plots go beside it")
    return parser.parse_args()


def _plan(arguments: argparse.Namespace, photographs: Path) -> Plan:
    is_shipped_alone = arguments.smoke or arguments.front_ends
    default_models = SHIPPED if is_shipped_alone else FIRST if arguments.quick else f"{FIRST},{SHIPPED}"
    names = (arguments.models or default_models).split(",")
    models = tuple(find_model(arguments.model_store or store_of(name, photographs), name) for name in names)
    plan = Plan(models, rounds=2 if arguments.quick else 3)
    if arguments.smoke:
        here = tuple(replace(server, environment=None) for server in SERVERS if server.name in SMOKE)
        timing = Timing(warm_up_s=0.2, duration_s=0.5)
        plan = Plan(
            models, here, rounds=1, small=SMALL[::2], profiles=PROFILES[:1], large=(), timing=timing, limits_s=0.0
        )
    if arguments.front_ends:
        plan = Plan(
            models,
            FRONT_ENDS[arguments.front_ends].servers,
            rounds=9,
            profiles=(),
            large=(),
            precisions=(arguments.front_ends,),
            num_small=60,
            keeps_profiles=True,
        )
    if arguments.servers:
        wanted = arguments.servers.split(";")
        if unknown := set(wanted) - {server.name for server in SERVERS}:
            raise SystemExit(f"no such servers: {unknown}; there are {[server.name for server in SERVERS]}")
        plan = replace(plan, servers=tuple(server for server in SERVERS if server.name in wanted))
    timing = replace(plan.timing, duration_s=arguments.seconds or plan.timing.duration_s)
    return replace(plan, rounds=arguments.rounds or plan.rounds, timing=timing)


SMOKE = (OURS[0].name, FASTAPI_DEF)


def main() -> int:
    """Return 0 if every server that ran answered rightly, and 1 if one did not, or did not start."""
    arguments = _parse()
    if arguments.lock:
        lock_all()
        return 0
    if arguments.report:
        _report(json.loads(arguments.output.read_text(encoding="utf-8")), arguments.output)
        return 0
    with tempfile.TemporaryDirectory(prefix="serving-drawn-") as scratch:
        photographs = arguments.photographs or _draw(Path(scratch, "drawn"))
        plan = _plan(arguments, photographs)
        for server in plan.servers:
            python_of(server)
        if arguments.install:
            return 0
        if os.getloadavg()[0] > _QUIET_LOAD and not arguments.smoke:
            _say(f"the machine is not quiet (load average {os.getloadavg()[0]:.1f}): these times mean little")
        begun_at = time.monotonic()
        results = compare(plan, photographs, arguments.output)
    _say(f"took {time.monotonic() - begun_at:.0f} s")
    _report(results, arguments.output)
    all_count = all(cell["counts"] for run in results["runs"] for cell in run["cells"])
    return 0 if all_count and not results["failed"] else 1


if __name__ == "__main__":
    sys.exit(main())
