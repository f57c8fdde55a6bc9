from typing import Any

from benchmarks.serving.ratios import render_ratios
from benchmarks.serving.servers import FASTAPI_DEF, LITSERVE, LITSERVE_OUR_ENGINE, OURS

AUTO, FLOAT32, _ = (server.name for server in OURS)


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
