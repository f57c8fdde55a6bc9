from typing import Any

from benchmarks.serving.ratios import find_interval, render_front_ends, render_ratios
from benchmarks.serving.servers import FASTAPI_DEF, FRONT_ENDS, LITSERVE, LITSERVE_OUR_ENGINE, OURS

AUTO, FLOAT32, _ = (server.name for server in OURS)
WORKERS, ONE_WORKER, MOSEC = (server.name for server in FRONT_ENDS["float32"].servers[:3])


def run(number: int, server: str, per_s: float, p50: float = 10.0, *, counts: bool = True) -> dict[str, Any]:
    cells = [
        {"size": "small", "connections": connections, "answers_per_s": per_s, "latency_ms": {"p50": p50},
         "counts": counts} for connections in (1, 32)
    ]  # fmt: skip
    where = {"round": number, "model": "flowers", "server": server}
    return {**where, "cold_start_s": p50 / 10, "memory": {"pss_mb": 10 * p50}, "cells": cells}


def ratios(*runs: dict[str, Any], limits: tuple[tuple[int, str, float], ...] = ()) -> dict[str, str]:
    rows = [
        {"round": number, "model": "flowers", "choice": choice, "both_per_s": per_s} for number, choice, per_s in limits
    ]
    table = render_ratios({"models": {"flowers": {}}, "runs": list(runs), "limits": rows})
    return dict(line.strip("| ").split(" | ") for line in table.splitlines()[2:])


def test_the_best_peer_is_that_of_the_round() -> None:
    found = ratios(
        run(0, AUTO, 100), run(1, AUTO, 300), run(2, AUTO, 200),
        run(0, LITSERVE, 50), run(1, LITSERVE, 75), run(1, FASTAPI_DEF, 100),
        run(0, LITSERVE_OUR_ENGINE, 400), run(1, LITSERVE_OUR_ENGINE, 400),
    )  # fmt: skip
    assert found["ours / the best peer, answers a second at 32 connections"] == "2.50 (2.00 to 3.00)"
    assert found["ours / LitServe, our engine, answers a second at 32 connections"] == "0.50 (0.25 to 0.75)"
    assert not any(name.startswith(FLOAT32) for name in found), "what was not measured has no row"


def test_each_precision_has_the_limit_of_its_own() -> None:
    found = ratios(run(0, AUTO, 80), run(0, FLOAT32, 30), limits=((0, "auto", 100.0), (0, "float32", 40.0)))
    assert found == {
        "ours / without HTTP, answers a second at 32 connections": "0.80 (0.80 to 0.80)",
        "ours, float32 / without HTTP, answers a second at 32 connections": "0.75 (0.75 to 0.75)",
    }


def test_latency_memory_and_start_are_beside_the_named_peers() -> None:
    found = ratios(run(0, AUTO, 1, p50=4), run(0, FASTAPI_DEF, 1, p50=8), run(0, LITSERVE, 1, p50=20))
    assert found["ours / FastAPI def, p50 of a lone client"].startswith("0.50 ")
    assert found["ours / LitServe, memory"].startswith("0.20 ")
    assert found["ours / LitServe, cold start"].startswith("0.20 ")


def test_photographs_with_profiles_are_beside_the_same_without() -> None:
    profiled = run(0, AUTO, 100)
    profiled["cells"] += [{**cell, "size": "profiles", "answers_per_s": 90} for cell in profiled["cells"]]
    name = "ours, photographs with profiles / the same without, answers a second at 32 connections"
    assert ratios(profiled) == {name: "0.90 (0.90 to 0.90)"}


def test_a_server_that_was_wrong_once_has_no_figure() -> None:
    assert not ratios(run(0, AUTO, 100), run(0, LITSERVE, 500), run(1, LITSERVE, 500, counts=False))
    found = ratios(run(0, AUTO, 100), run(0, LITSERVE, 0))
    assert "ours / the best peer, answers a second at 32 connections" not in found


def test_a_model_without_a_figure_has_a_dash() -> None:
    runs = [run(0, AUTO, 100), run(0, LITSERVE, 50), {**run(0, AUTO, 100), "model": "other"}]
    table = render_ratios({"models": {"flowers": {}, "other": {}}, "runs": runs, "limits": []})
    assert "| ours / the best peer, answers a second at 32 connections | 2.00 (2.00 to 2.00) | - |" in table


def front_ends(*runs: dict[str, Any], limits: tuple[tuple[int, str, float], ...] = ()) -> dict[str, str]:
    rows = [
        {"round": number, "model": "flowers", "choice": choice, "processes_per_s": per_s}
        for number, choice, per_s in limits
    ]
    lines = render_front_ends({"runs": list(runs), "limits": rows}, "flowers").splitlines()
    return dict(line.strip("| ").split(" | ", 1) for line in lines[:1] + lines[2:])


def loaded(number: int, server: str, per_s: dict[int, float], p99: float = 100.0) -> dict[str, Any]:
    cells = [
        {"size": "small", "connections": connections, "answers_per_s": value, "latency_ms": {"p99": p99},
         "counts": True} for connections, value in per_s.items()
    ]  # fmt: skip
    return {**run(number, server, 0), "cells": cells}


def test_front_ends_are_compared_within_rounds_at_each_load() -> None:
    found = front_ends(
        loaded(0, WORKERS, {1: 100, 64: 200}), loaded(1, WORKERS, {1: 10, 64: 30}), loaded(2, WORKERS, {1: 1}),
        loaded(0, MOSEC, {1: 50, 64: 200}), loaded(1, MOSEC, {1: 10, 64: 20}),
    )  # fmt: skip
    assert found[f"{WORKERS} / {MOSEC}, answers a second"] == "1.50 (1.00 to 2.00) | - | - | 1.25 (1.00 to 1.50)"


def test_front_ends_have_the_limit_of_their_precision() -> None:
    limits = ((0, "auto", 1000.0), (0, "float32", 400.0))
    found = front_ends(loaded(0, WORKERS, {8: 300}), loaded(0, MOSEC, {8: 200}), limits=limits)
    assert found[f"{WORKERS} / without HTTP, answers a second"] == "- | 0.75 (0.75 to 0.75) | - | -"
    assert found[f"{MOSEC} / without HTTP, answers a second"] == "- | 0.50 (0.50 to 0.50) | - | -"


def test_latency_of_workers_is_beside_one_worker() -> None:
    found = front_ends(loaded(0, WORKERS, {32: 1}, p99=110), loaded(0, ONE_WORKER, {32: 1}, p99=100))
    assert found[f"{WORKERS} / {ONE_WORKER}, p99 latency"] == "- | - | 1.10 (1.10 to 1.10) | -"


def test_front_ends_have_no_table_without_our_workers() -> None:
    assert not front_ends(loaded(0, MOSEC, {8: 200}), limits=((0, "float32", 400.0),))


def test_many_rounds_give_a_confidence_interval() -> None:
    ratios_of_nine = [0.5, 0.91, 0.92, 0.93, 0.94, 0.95, 0.96, 0.97, 2.0]
    assert find_interval(ratios_of_nine) == (0.91, 0.97), "2 * (1 + 9) / 2**9 is 4 %"
    assert find_interval(ratios_of_nine[:8]) == (0.5, 0.97), "2 * (1 + 8) / 2**8 is 7 %"
    assert find_interval(range(1, 21)) == (6, 15), "as in tables of the sign test"
    rounds = [loaded(number, WORKERS, {8: 100 * ratio}) for number, ratio in enumerate(ratios_of_nine)]
    found = front_ends(*rounds, *(loaded(number, MOSEC, {8: 100}) for number in range(9)))
    assert found[f"{WORKERS} / {MOSEC}, answers a second"] == "- | 0.94 (0.91 to 0.97) | - | -"
    assert "flowers, within a round, by connections: median (95 % interval)" in found


def test_few_rounds_give_the_least_and_the_most() -> None:
    assert find_interval([1.0, 3.0, 2.0]) == (1.0, 3.0)
    found = front_ends(loaded(0, WORKERS, {8: 1}), loaded(0, MOSEC, {8: 1}))
    assert "flowers, within a round, by connections: median (least to most)" in found
