"""The harness: who answers wrongly, slowly or not at all is caught, and nothing of a peer is left behind."""

import json
import re
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from conftest import REPOSITORY
from support.drawing import draw_folder, draw_photograph, encode, srgb_profile
from support.icc import matrix_profile

from benchmarks.serving import limits
from benchmarks.serving.environments import PEERS
from benchmarks.serving.limits import measure_limits
from benchmarks.serving.measure import ServerFailed, Stage, Timing, does_count, measure
from benchmarks.serving.photographs import (
    UNREADABLE,
    WRONG,
    Photograph,
    read_profiled,
    with_profile,
    without_profile,
)
from benchmarks.serving.report import BEGIN, END, embed, render, summarise, write_report
from benchmarks.serving.servers import CORES, FRONT_ENDS, SERVERS, Model, Server, environment_of
from service.engines.wish import PrecisionWish
from service.imaging.decode import decode_image

MODEL = Model("flowers", Path("model_store"), 1, ("roses", "tulips"), "none")
ROSE, TULIP = Photograph(b"rose", "roses", 0.99), Photograph(b"tulip", "tulips", 0.99)
TIMING = Timing(warm_up_s=0.0, duration_s=0.3, timeout_s=3.0, start_timeout_s=10.0)
SCRIPT = Path(__file__).parents[1] / "support" / "scripted_peer.py"


def peer(label: str, pause_s: float = 0.0) -> Server:
    return Server(
        "peer",
        lambda python, port, _: [python, str(SCRIPT), str(port), label, str(pause_s)],
        lambda document, _: list(document["probabilities"]),
    )


def run_peer(server: Server, *photographs: Photograph, timing: Timing = TIMING) -> dict[str, Any]:
    return measure(server, MODEL, {"small": photographs}, [Stage("small", 2)], timing)


def processes_of_script() -> list[str]:
    command_lines = [_read(folder / "cmdline") for folder in Path("/proc").glob("[0-9]*")]
    return [line for line in command_lines if str(SCRIPT) in line]


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:  # it has ended meanwhile
        return ""


def test_a_right_peer_is_weighed_with_all_its_processes() -> None:
    result = run_peer(peer("roses"), ROSE)
    (cell,) = result["cells"]
    assert cell["counts"]
    assert cell["wrong_answers"] == 0
    assert cell["num_answers"] > 0
    assert 0 < result["cold_start_s"] < 10
    assert result["memory"]["num_processes"] == 2
    assert 0 < result["memory"]["pss_mb"] < result["memory"]["rss_mb"]


def test_a_peer_with_one_answer_for_all_is_caught() -> None:
    (cell,) = run_peer(peer("roses"), ROSE, TULIP)["cells"]
    assert not cell["counts"]
    assert cell["wrong_answers"] == cell["errors"][WRONG] >= cell["num_answers"] - 2 > 0


def test_a_peer_whose_probability_is_off_is_caught() -> None:
    (cell,) = run_peer(peer("roses"), ROSE, replace(ROSE, probability=0.6))["cells"]
    assert not cell["counts"]
    assert cell["wrong_answers"] > 0


def test_one_wrong_answer_among_thousands_is_one_too_many() -> None:
    assert does_count(num_right=5000, num_errors=50, num_wrong=0)
    assert not does_count(num_right=5000, num_errors=1, num_wrong=1)
    assert not does_count(num_right=5000, num_errors=51, num_wrong=0)
    assert not does_count(num_right=0, num_errors=0, num_wrong=0)


def test_a_slow_peer_shows_no_answers_after_the_end() -> None:
    (cell,) = run_peer(peer("roses", pause_s=0.4), ROSE)["cells"]
    assert cell["counts"]
    assert cell["latency_ms"]["p50"] >= 400
    assert cell["answers_per_s"] == 0


@pytest.mark.long
@pytest.mark.parametrize(
    ("label", "pause_s", "error"), [("tulips", 0, WRONG), ("", 0, UNREADABLE), ("roses", 3, "timeout")]
)
def test_a_peer_that_is_never_right_fails_with_reason(label: str, pause_s: float, error: str) -> None:
    with pytest.raises(ServerFailed, match=error):
        run_peer(peer(label, pause_s), ROSE, timing=replace(TIMING, timeout_s=0.5, start_timeout_s=3))
    assert not processes_of_script()


def test_a_peer_that_does_not_start_fails_with_log() -> None:
    broken = replace(peer("roses"), command=lambda python, *_: [python, "-c", "raise SystemExit('no such module')"])
    begun_at = time.monotonic()
    with pytest.raises(ServerFailed, match="no such module"):
        run_peer(broken, ROSE, timing=replace(TIMING, start_timeout_s=60))
    assert time.monotonic() - begun_at < 30


def test_no_child_of_a_peer_is_left_behind() -> None:
    run_peer(peer("roses"), ROSE)
    assert not processes_of_script()


@pytest.mark.parametrize("folder", sorted({server.environment for server in SERVERS if server.environment}))
def test_every_peer_is_locked_by_hash_without_a_registry(folder: str) -> None:
    lock = (PEERS / folder / "requirements.txt").read_text(encoding="utf-8")
    assert lock.count("--hash=sha256:") > 20
    assert "://" not in lock


@pytest.mark.parametrize("precision", ["auto", "float32"])
def test_front_ends_have_one_precision_and_all_cores(precision: PrecisionWish, tmp_path: Path) -> None:
    group = FRONT_ENDS[precision]
    for server, num_workers in ((group.ours, CORES), (group.one_worker, 1)):
        command = " ".join(server.command("python", 8000, MODEL))
        assert " serve --port 8000 " in command
        assert command.endswith(f" --precision {precision} --workers {num_workers}")
    for server in group.others:
        variables = environment_of(server, 8000, MODEL, tmp_path)
        assert (variables["PRECISION"], variables["WORKERS"]) == (precision, str(CORES))
        assert server.environment == server.folder.name
        assert server.folder.name.endswith("_our_engine")


@pytest.mark.long
def test_the_limit_is_that_of_the_best_loop(tiny_version: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tiny_version / "flowers" / "1"
    photographs = [encode(draw_photograph(2, seed, (40, 30))) for seed in range(3)]

    def measure_both() -> tuple[float, str]:
        found = measure_limits(folder, photographs, 0.1, engine="auto", precision="float32")
        assert found["both_per_s"] >= found["processes_per_s"]
        return found["both_per_s"], found["both_how"]

    per_s, _ = measure_both()
    assert per_s > 0
    assert limits.measure_in_processes(folder, photographs, 0.1, {"precision": "float32"}) > 0
    monkeypatch.setattr(limits, "measure_in_processes", lambda *_: 1e9)
    assert measure_both() == (1e9, "a process per core decodes and computes")
    monkeypatch.setattr(limits, "measure_in_processes", lambda *_: 0.0)
    assert "thread" in measure_both()[1]


EMPTY: dict[str, Any] = {
    "machine": {"cpu": {"model": "a CPU", "cores": 2, "features": ["avx2"]}, "memory": "24 GiB"},
    "load_average_before": 0.1,
    "timing": {"duration_s": 2.0},
    "client": {"answers_per_s": 9000.0, "cpu_ms_per_request": 0.05},
    "models": {"flowers": {"network": "alexnet_v2"}},
    "skipped": [],
    "failed": [],
    "limits": [],
    "runs": [],
}


def test_the_report_has_medians_of_servers_that_were_right(tmp_path: Path) -> None:
    def cell(connections: int, per_s: float, *, counts: bool = True) -> dict[str, Any]:
        latencies = {"p50": 10.0, "p99": 30.0}
        wrong = 0 if counts else 7
        return {
            **{"size": "small", "connections": connections, "answers_per_s": per_s, "latency_ms": latencies},
            **{"counts": counts, "wrong_answers": wrong, "errors": {WRONG: wrong} if wrong else {}},
        }

    def run(number: int, server: str, *cells: dict[str, Any]) -> dict[str, Any]:
        memory = {"num_processes": 1, "rss_mb": 120.0, "pss_mb": 100.0}
        where = {"round": number, "model": "flowers", "server": server}
        return {**where, "cold_start_s": 2.0, "memory": memory, "cells": list(cells)}

    results = EMPTY | {
        "failed": [{"model": "flowers", "server": "third", "reason": "no right answer; its log ends:\nlines"}],
        "runs": [
            *(run(number, "ours", cell(32, per_s)) for number, per_s in enumerate((100.0, 300.0, 200.0))),
            run(0, "liar", cell(32, 999.0, counts=False)),
        ],
    }
    text = write_report(results, tmp_path / "serving.json")
    assert "| ours | - / - / 200 / - | - | 30 |" in text
    assert "| liar | - / - / does not count / - | - | does not count |" in text
    assert "999" not in text
    assert "third (flowers) failed: no right answer\n" in text
    assert (tmp_path / "serving.md").read_text(encoding="utf-8") == text
    assert "<svg" in (tmp_path / "serving-flowers.svg").read_text(encoding="utf-8")


def test_photographs_with_profiles_are_the_same_without_them(tmp_path: Path) -> None:
    bare = [encode(draw_photograph(2, seed, (40, 30))) for seed in range(4)]
    (tmp_path / "roses").mkdir()
    for number, data in enumerate(bare):
        tagged = data if number == 2 else with_profile(data, matrix_profile(2.2))
        (tmp_path / "roses" / f"{number}.jpg").write_bytes(tagged)
    found = read_profiled(tmp_path, 3)
    assert [without_profile(data) for data in found] == [bare[0], bare[1], bare[3]]
    assert {decode_image(data).profile for data in found} == {matrix_profile(2.2)}
    assert read_profiled(tmp_path, 4) == []


def test_the_document_says_what_profiles_cost() -> None:
    """The median of the ratios within rounds, and their ends."""
    table = (REPOSITORY / "benchmarks" / "results" / "serving-profiles.md").read_text(encoding="utf-8")
    name = "ours, photographs with profiles / the same without, answers a second at 32 connections"
    (ratio,) = re.findall(rf"^\| {name} \| ([\d.]+) \(([\d.]+) to ([\d.]+)\) \|$", table, re.MULTILINE)
    text = (REPOSITORY / "docs" / "reference" / "speed.md").read_text(encoding="utf-8")
    assert "{} times the answers in int8 ({} to {} in three rounds)".format(*ratio) in text


def test_photographs_are_alike_if_one_answer_suits_both() -> None:
    assert ROSE.is_like(replace(ROSE, probability=0.95))
    assert not ROSE.is_like(replace(ROSE, probability=0.93))
    assert not ROSE.is_like(TULIP)


def test_the_report_has_a_column_of_measured_profiles(tmp_path: Path) -> None:
    def cell(size: str, per_s: float) -> dict[str, Any]:
        shared = {"latency_ms": {"p50": 10.0, "p99": 30.0}, "counts": True, "wrong_answers": 0, "errors": {}}
        return {"size": size, "connections": 32, "answers_per_s": per_s, **shared}

    def table(*cells: dict[str, Any]) -> str:
        memory = {"rss_mb": 120.0, "pss_mb": 100.0}
        run = {"round": 0, "model": "flowers", "server": "ours", "cold_start_s": 2.0, "memory": memory}
        return render(EMPTY | {"runs": [{**run, "cells": cells}]}, tmp_path / "serving.json")

    assert "profiles" not in table(cell("small", 200.0))
    with_profiles = table(cell("small", 200.0), cell("profiles", 190.0))
    assert "| req/s at 1 / 8 / 32 / 64 | with profiles req/s at 1 / 32 |" in with_profiles
    assert "| ours | - / - / 200 / - | - / 190 |" in with_profiles


def test_a_page_takes_the_report_between_its_marks() -> None:
    once = embed("| table |\n\n![plot](a.svg)\n", f"before\n{BEGIN}\nold\n{END}\nafter\n", "results")
    assert once == f"before\n{BEGIN}\n\n| table |\n\n![plot](results/a.svg)\n\n{END}\nafter\n"
    assert embed("| table |\n\n![plot](a.svg)\n", once, "results") == once
    assert embed("text", "a document without marks", "results") == "a document without marks"


def test_the_documents_hold_the_kept_results(tmp_path: Path) -> None:
    kept = REPOSITORY / "benchmarks" / "results" / "serving.json"
    results = json.loads(kept.read_text(encoding="utf-8"))
    page = (REPOSITORY / "docs" / "reference" / "speed.md").read_text(encoding="utf-8")
    text = render(results, tmp_path / kept.name)
    assert page == embed(text, page, "../../benchmarks/results"), "run `python -m benchmarks.serving --report`"
    readme = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    assert readme == embed(summarise(results), readme, ""), "run `python -m benchmarks.serving --report`"
    assert len(re.findall(r"^\|", summarise(results), re.MULTILINE)) == 2 + 4
    for other in (kept.with_name("serving-zen4.json"), kept.with_name("serving-profiles.json")):
        text = render(json.loads(other.read_text(encoding="utf-8")), tmp_path / other.name)
        assert other.with_suffix(".md").read_text(encoding="utf-8") == text


@pytest.mark.long
def test_the_smoke_form_finds_two_servers_right(tiny_version: Path, tmp_path: Path) -> None:
    output, drawn = tmp_path / "serving.json", draw_folder(tmp_path / "drawn", 40, size=(500, 333))
    for path in drawn.glob("*/*.jpg"):
        path.write_bytes(with_profile(path.read_bytes(), srgb_profile()))
    command = [sys.executable, "-m", "benchmarks.serving", str(drawn), "--smoke", "--model-store", str(tiny_version)]
    done = subprocess.run([*command, "--output", str(output)], cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    results = json.loads(output.read_text(encoding="utf-8"))
    assert [run["server"] for run in results["runs"]] == ["ours", "FastAPI def"]
    assert all(cell["counts"] for run in results["runs"] for cell in run["cells"])
    assert {cell["size"] for run in results["runs"] for cell in run["cells"]} == {"small", "profiles"}
    assert len(results["models"]["flowers"]["photographs"]["small"]["labels"]) == 5
    assert "| FastAPI def |" in done.stdout
