"""Ratios of our servers to the peers and to the limits, each within a round.

In a round the servers take turns. So a machine's slow minutes weigh less than in medians over each server's own rounds.
The limits are measured for a second before each round. A server may come out above them.
"""

import statistics
from collections.abc import Iterator
from typing import Any

from benchmarks.serving.servers import FASTAPI_DEF, LITSERVE, LITSERVE_OUR_ENGINE, OURS

_ByRound = dict[int, float]
_AUTO, _FLOAT32, _SAVED_MODEL = (server.name for server in OURS)


def render_ratios(results: dict[str, Any]) -> str:
    """Return a table with a ratio per row and a model per column, as median (least to most), or "" without a ratio."""
    models = list(results["models"])
    columns = [list(_ratios(_Rounds(results, model))) for model in models]
    rows = [
        f"| {name} | {' | '.join(_in_words(column[number][1]) for column in columns)} |"
        for number, (name, _) in enumerate(columns[0])
        if any(column[number][1] for column in columns)
    ]
    if not rows:
        return ""
    head = f"| within a round: median (least to most) | {' | '.join(models)} |"
    return "\n".join([head, "|---" * (1 + len(models)) + "|", *rows])


class _Rounds:
    """Figures of one model by the number of the round, without servers that were wrong or failed in any."""

    def __init__(self, results: dict[str, Any], model: str) -> None:
        runs = [run for run in results["runs"] if run["model"] == model]
        unreliable = {run["server"] for run in runs if not all(cell["counts"] for cell in run["cells"])}
        self._runs = [run for run in runs if run["server"] not in unreliable]
        self._limits = [row for row in results["limits"] if row["model"] == model]

    def per_s(self, server: str, size: str = "small") -> _ByRound:
        """Return answers per second at 32 connections."""
        return {number: cell["answers_per_s"] for number, cell in self._cells(server, 32, size)}

    def p50_ms(self, server: str) -> _ByRound:
        """Return the median latency of a lone client."""
        return {number: cell["latency_ms"]["p50"] for number, cell in self._cells(server, 1)}

    def pss_mb(self, server: str) -> _ByRound:
        return {run["round"]: run["memory"]["pss_mb"] for run in self._of(server)}

    def cold_start_s(self, server: str) -> _ByRound:
        return {run["round"]: run["cold_start_s"] for run in self._of(server)}

    def limit_per_s(self, choice: str) -> _ByRound:
        """Return photographs per second of decoding and engine in a loop without HTTP."""
        return {row["round"]: row["both_per_s"] for row in self._limits if row["choice"] == choice}

    def best_peer_per_s(self) -> _ByRound:
        """Return the most answers per second of the peers with an engine of their own."""
        best: _ByRound = {}
        for server in {run["server"] for run in self._runs} - {_AUTO, _FLOAT32, _SAVED_MODEL, LITSERVE_OUR_ENGINE}:
            for number, value in self.per_s(server).items():
                best[number] = max(value, best.get(number, 0.0))
        return best

    def _of(self, server: str) -> list[dict[str, Any]]:
        return [run for run in self._runs if run["server"] == server]

    def _cells(self, server: str, connections: int, size: str = "small") -> Iterator[tuple[int, dict[str, Any]]]:
        for run in self._of(server):
            for cell in run["cells"]:
                if (cell["size"], cell["connections"]) == (size, connections):
                    yield run["round"], cell


def _ratios(rounds: _Rounds) -> Iterator[tuple[str, list[float]]]:
    def row(name: str, ours: _ByRound, others: _ByRound) -> tuple[str, list[float]]:
        return name, [value / others[number] for number, value in ours.items() if others.get(number)]

    at_32 = "answers a second at 32 connections"
    for server in (_AUTO, _FLOAT32, _SAVED_MODEL):
        yield row(f"{server} / the best peer, {at_32}", rounds.per_s(server), rounds.best_peer_per_s())
    yield row(f"{_AUTO} / {LITSERVE_OUR_ENGINE}, {at_32}", rounds.per_s(_AUTO), rounds.per_s(LITSERVE_OUR_ENGINE))
    for server, choice in ((_AUTO, "auto"), (_FLOAT32, "float32")):
        yield row(f"{server} / without HTTP, {at_32}", rounds.per_s(server), rounds.limit_per_s(choice))
    for server in (_AUTO, _FLOAT32):
        yield row(f"{server} / FastAPI def, p50 of a lone client", rounds.p50_ms(server), rounds.p50_ms(FASTAPI_DEF))
    for server in (_AUTO, _FLOAT32):
        profiled, bare = rounds.per_s(server, "profiles"), rounds.per_s(server)
        yield row(f"{server}, photographs with profiles / the same without, {at_32}", profiled, bare)
    for server in (_AUTO, _FLOAT32):
        yield row(f"{server} / LitServe, memory", rounds.pss_mb(server), rounds.pss_mb(LITSERVE))
    for server in (_AUTO, _FLOAT32):
        yield row(f"{server} / LitServe, cold start", rounds.cold_start_s(server), rounds.cold_start_s(LITSERVE))


def _in_words(ratios: list[float]) -> str:
    return f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})" if ratios else "-"
