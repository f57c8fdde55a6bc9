"""Ratios of our servers to the peers and to the limits, each within a round.

In a round the servers take turns. So a machine's slow minutes weigh less than in medians over each server's own rounds.
The limits are measured for a second before each round. A server may come out above them.
"""

import math
import statistics
from collections.abc import Iterator, Sequence
from typing import Any

from benchmarks.serving.servers import (
    FASTAPI_DEF,
    FRONT_ENDS,
    LITSERVE,
    LITSERVE_OUR_ENGINE,
    OTHER_FRONT_ENDS,
    OURS,
)

_ByRound = dict[int, float]
_AUTO, _FLOAT32, _SAVED_MODEL = (server.name for server in OURS)
_CONNECTIONS = (1, 8, 32, 64)
_CONFIDENCE = 0.95
_FEWEST = 6  # rounds for an interval of that confidence


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
    head = f"| within a round: {_form(results)} | {' | '.join(models)} |"
    return "\n".join([head, "|---" * (1 + len(models)) + "|", *rows])


def render_front_ends(results: dict[str, Any], model: str) -> str:
    """Return a table with a ratio per row and a number of connections per column. It is "" without our workers."""
    rounds = _Rounds(results, model)
    rows = [
        f"| {name} | {' | '.join(map(_in_words, columns))} |" for name, columns in _front_ends(rounds) if any(columns)
    ]
    if not rows:
        return ""
    head = f"| {model}, within a round, by connections: {_form(results)} | {' | '.join(map(str, _CONNECTIONS))} |"
    return "\n".join([head, "|---" * (1 + len(_CONNECTIONS)) + "|", *rows])


def _front_ends(rounds: "_Rounds") -> Iterator[tuple[str, list[list[float]]]]:
    """Yield a row's name and its ratios of all rounds, for each number of connections."""
    measured = [group for group in FRONT_ENDS.values() if rounds.has(group.ours.name)]
    for group in measured:
        for figure, in_words in (("answers_per_s", "answers a second"), ("p99", "p99 latency")):
            ours = [rounds.figure(group.ours.name, figure, count) for count in _CONNECTIONS]
            for other in (group.one_worker.name, *(server.name for server in group.others)):
                theirs = [rounds.figure(other, figure, count) for count in _CONNECTIONS]
                yield f"{group.ours.name} / {other}, {in_words}", list(map(_within, ours, theirs))
        limit = rounds.limit_per_s(group.ours.precision, "processes_per_s")
        for name in (server.name for server in group.servers):
            figures = (rounds.figure(name, "answers_per_s", count) for count in _CONNECTIONS)
            yield f"{name} / without HTTP, answers a second", [_within(one, limit) for one in figures]


class _Rounds:
    """Figures of one model by the number of the round, without servers that were wrong or failed in any."""

    def __init__(self, results: dict[str, Any], model: str) -> None:
        runs = [run for run in results["runs"] if run["model"] == model]
        unreliable = {run["server"] for run in runs if not all(cell["counts"] for cell in run["cells"])}
        self._runs = [run for run in runs if run["server"] not in unreliable]
        self._limits = [row for row in results["limits"] if row["model"] == model]

    def has(self, server: str) -> bool:
        """Return whether the server ran and was never wrong."""
        return any(self._of(server))

    def figure(self, server: str, name: str, connections: int, size: str = "small") -> _ByRound:
        """Return answers per second, or a percentile of the latency in ms, such as "p99"."""
        cells = self._cells(server, connections, size)
        return {number: cell[name] if name in cell else cell["latency_ms"][name] for number, cell in cells}

    def per_s(self, server: str, size: str = "small") -> _ByRound:
        """Return answers per second at 32 connections."""
        return self.figure(server, "answers_per_s", 32, size)

    def p50_ms(self, server: str) -> _ByRound:
        """Return the median latency of a lone client."""
        return self.figure(server, "p50", 1)

    def pss_mb(self, server: str) -> _ByRound:
        return {run["round"]: run["memory"]["pss_mb"] for run in self._of(server)}

    def cold_start_s(self, server: str) -> _ByRound:
        return {run["round"]: run["cold_start_s"] for run in self._of(server)}

    def limit_per_s(self, choice: str, how: str = "both_per_s") -> _ByRound:
        """Return photographs per second without HTTP, of the best loop or of "processes_per_s", a process per core."""
        return {row["round"]: row[how] for row in self._limits if row["choice"] == choice}

    def best_peer_per_s(self) -> _ByRound:
        """Return the most answers per second of the peers with an engine of their own."""
        best: _ByRound = {}
        others = {server.name for server in OTHER_FRONT_ENDS}
        for server in {run["server"] for run in self._runs if not run["server"].startswith("ours")} - others:
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
        return name, _within(ours, others)

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


def _within(ours: _ByRound, others: _ByRound) -> list[float]:
    """Return the ratio of each round that has both figures."""
    return [value / others[number] for number, value in ours.items() if others.get(number)]


def find_interval(ratios: Sequence[float]) -> tuple[float, float]:
    """Return a confidence interval of the median. Of fewer than six ratios it is the least and the most.

    No distribution is assumed.

    Source: the sign test. A value is below the true median as often as above, so the ranks are binomial.
    """
    ranked, count = sorted(ratios), len(ratios)
    outside, skipped = 1, 0
    while 2 * (outside + math.comb(count, skipped + 1)) <= (1 - _CONFIDENCE) * 2**count:
        skipped += 1
        outside += math.comb(count, skipped)
    return ranked[skipped], ranked[-1 - skipped]


def _form(results: dict[str, Any]) -> str:
    num_rounds = len({run["round"] for run in results["runs"]})
    return f"median ({'95 % interval' if num_rounds >= _FEWEST else 'least to most'})"


def _in_words(ratios: list[float]) -> str:
    if not ratios:
        return "-"
    least, most = find_interval(ratios)
    return f"{statistics.median(ratios):.2f} ({least:.2f} to {most:.2f})"
