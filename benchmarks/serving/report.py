"""Report with a table per model, and plots of throughput and p99 against connections."""

import statistics
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import service  # noqa: F401 - before matplotlib, whose files it keeps in the cache folder
from benchmarks.serving.ratios import render_front_ends, render_ratios
from benchmarks.serving.servers import OTHER_FRONT_ENDS

BEGIN, END = "<!-- written by benchmarks.serving -->", "<!-- end -->"
_SHOWN = (1, 8, 32, 64)
_PALETTE = (
    "#c0392b",
    "#e67e22",
    "#f1c40f",
    "#2c3e50",
    "#7f8c8d",
    "#2980b9",
    "#16a085",
    "#8e44ad",
    "#27ae60",
    "#95a5a6",
)


def write_report(results: dict[str, Any], path: Path) -> str:
    """Write `<name>.md` and `<name>-<model>.svg` beside the results in `path`, and return the former's text."""
    text = render(results, path)
    path.with_suffix(".md").write_text(text, encoding="utf-8")
    return text


def summarise(results: dict[str, Any], model: str = "flowers") -> str:
    """Return a table of our service beside the peer with the most answers, in four rows about one model."""
    ours, *others = _servers(results, model)
    other_front_ends = {server.name for server in OTHER_FRONT_ENDS}
    peer = next(name for name in others if not name.startswith("ours") and name not in other_front_ends)
    columns = []
    for server in (ours, peer):
        runs = [run for run in results["runs"] if run["model"] == model and run["server"] == server]
        cells = [cell for run in runs for cell in run["cells"]]
        columns.append(
            (
                _figure(cells, "small", 32, "answers_per_s"),
                _figure(cells, "small", 32, "p99"),
                f"{_median(run['memory']['pss_mb'] for run in runs):.0f}",
                f"{_median(run['cold_start_s'] for run in runs):.1f}",
            )
        )
    names = ("answers a second at 32 connections", "p99 latency then, ms", "memory, MB", "cold start, s")
    rows = [f"| {name} | {' | '.join(figures)} |" for name, *figures in zip(names, *columns, strict=True)]
    return "\n".join([f"| | this service, int8 | {peer} |", "|---|---|---|", *rows]) + "\n"


def embed(text: str, document: str, folder: str) -> str:
    """Return the document with `text` between the two marks. Plots are linked in `folder`.

    A document without marks stays as it is.
    """
    before, begin, rest = document.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not end:
        return document
    return f"{before}{begin}\n\n{text.replace('](', f']({folder}/')}\n{end}{after}"


def render(results: dict[str, Any], path: Path) -> str:
    """Return the text as Markdown, and draw the plots beside `path`."""
    texts = [_head(results), render_ratios(results)]
    for model in results["models"]:
        plot = path.with_name(f"{path.stem}-{model}.svg")
        texts += [render_front_ends(results, model), _table(results, model), _limits(results, model)]
        if _draw(results, model, plot):
            texts.append(f"![throughput and p99 against connections, {model}]({plot.name})")
    for problem in ("skipped", "failed"):
        texts += [f"{row['server']} ({row['model']}) {problem}: {_first_line(row)}" for row in _once(results[problem])]
    return "\n\n".join(text for text in texts if text) + "\n"


def _head(results: dict[str, Any]) -> str:
    cpu = results["machine"]["cpu"]
    rounds = 1 + max((run["round"] for run in results["runs"]), default=0)
    client = results["client"]
    profiles = "Photographs kept their colour profiles. " if results.get("keeps_profiles") else ""
    return (
        f"{cpu['model']}, {cpu['cores']} cores ({', '.join(cpu['features'])}), {results['machine']['memory']}; "
        f"load average before {results['load_average_before']:.1f}. Medians of {rounds} interleaved rounds, "
        f"{results['timing']['duration_s']:g} s each. Every answer was checked. {profiles}"
        f"The client alone manages "
        f"{client['answers_per_s']:.0f} requests a second, at {client['cpu_ms_per_request']} ms of processor each."
    )


def _table(results: dict[str, Any], model: str) -> str:
    described = results["models"][model]
    has_profiles = any(cell["size"] == "profiles" for run in results["runs"] for cell in run["cells"])
    names = (
        "server", "req/s at 1 / 8 / 32 / 64", *(["with profiles req/s at 1 / 32"] if has_profiles else []),
        "p50 ms at 1", "p99 ms at 32", "12 MP req/s at 1 / 8", "PSS MB", "RSS MB", "cold start s", "wrong", "errors",
    )  # fmt: skip
    rows = [f"**{model}** ({described['network']})", "", f"| {' | '.join(names)} |", "|---" * len(names) + "|"]
    for server in _servers(results, model):
        runs = [run for run in results["runs"] if run["model"] == model and run["server"] == server]
        cells = [cell for run in runs for cell in run["cells"]]
        columns = (
            server,
            " / ".join(_figure(cells, "small", connections, "answers_per_s") for connections in _SHOWN),
            *([_with_profiles(cells)] if has_profiles else []),
            _figure(cells, "small", 1, "p50"),
            _figure(cells, "small", 32, "p99"),
            " / ".join(_figure(cells, "large", connections, "answers_per_s") for connections in (1, 8)),
            f"{statistics.median(run['memory']['pss_mb'] for run in runs):.0f}",
            f"{statistics.median(run['memory']['rss_mb'] for run in runs):.0f}",
            f"{statistics.median(run['cold_start_s'] for run in runs):.1f}",
            str(sum(cell["wrong_answers"] for cell in cells)),
            str(sum(sum(cell["errors"].values()) - cell["wrong_answers"] for cell in cells)),
        )
        rows.append(f"| {' | '.join(columns)} |")
    return "\n".join(rows)


def _with_profiles(cells: list[dict[str, Any]]) -> str:
    return " / ".join(_figure(cells, "profiles", connections, "answers_per_s") for connections in (1, 32))


def _limits(results: dict[str, Any], model: str) -> str:
    limits = [row for row in results["limits"] if row["model"] == model]
    if not limits:
        return ""
    rows = [
        "| without HTTP | engine alone, images/s in batches of 1 / 4 / 16 / 32 | decoding alone | both "
        "| one photograph ms |",
        "|---|---|---|---|---|",
    ]
    for choice in dict.fromkeys(row["choice"] for row in limits):
        same = [row for row in limits if row["choice"] == choice]
        engine = " / ".join(
            f"{_median(row['engine_per_s'][size] for row in same):.0f}" for size in same[0]["engine_per_s"]
        )
        figures = (
            f"{choice}: {same[0]['engine']}, {same[0]['precision']}",
            engine,
            f"{_median(row['decode_per_s'] for row in same):.0f}",
            f"{_median(row['both_per_s'] for row in same):.0f} ({same[0]['both_how']})",
            f"{_median(row['one_photograph_ms'] for row in same):.1f}",
        )
        rows.append(f"| {' | '.join(figures)} |")
    return "\n".join(rows)


def _figure(cells: list[dict[str, Any]], size: str, connections: int, figure: str) -> str:
    """Return the median over the rounds, "-" where there is none, or "wrong" where an answer did not count."""
    value = _value(cells, size, connections, figure)
    if value is None:
        measured = any(cell["size"] == size and cell["connections"] == connections for cell in cells)
        return "does not count" if measured else "-"
    return f"{value:.0f}" if value >= 20 else f"{value:.1f}"


def _value(cells: list[dict[str, Any]], size: str, connections: int, figure: str) -> float | None:
    same = [cell for cell in cells if cell["size"] == size and cell["connections"] == connections]
    if not same or not all(cell["counts"] for cell in same):
        return None
    return _median(cell[figure] if figure in cell else cell["latency_ms"][figure] for cell in same)


def _draw(results: dict[str, Any], model: str, path: Path) -> bool:
    try:
        import matplotlib
    except ImportError:
        return False
    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "serving"  # the same results draw the same file
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(11, 4.5), layout="constrained")
    for server, colour in zip(_servers(results, model), _PALETTE, strict=False):
        cells = [
            cell
            for run in results["runs"]
            if run["model"] == model and run["server"] == server
            for cell in run["cells"]
        ]
        for axis, name in zip(axes, ("answers_per_s", "p99"), strict=True):
            points = [(count, value) for count in _SHOWN if (value := _value(cells, "small", count, name)) is not None]
            width = 2.5 if server.startswith("ours") else 1.2
            axis.plot(*zip(*points, strict=True) if points else ((), ()), "o-", label=server, color=colour, lw=width)
    for axis, title in zip(axes, ("photographs per second", "p99 latency, ms"), strict=True):
        axis.set(xlabel="connections", title=title, xscale="log", xticks=_SHOWN, xticklabels=_SHOWN)
        axis.minorticks_off()
    axes[0].set_ylim(bottom=0)
    axes[1].set_yscale("log")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside right upper")
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)
    return True


def _servers(results: dict[str, Any], model: str) -> list[str]:
    """Return the servers that ran, ours first, then by throughput at 32 connections."""
    names = dict.fromkeys(run["server"] for run in results["runs"] if run["model"] == model)

    def rank(name: str) -> tuple[bool, float]:
        cells = [c for run in results["runs"] if run["model"] == model and run["server"] == name for c in run["cells"]]
        return not name.startswith("ours"), -(_value(cells, "small", 32, "answers_per_s") or 0)

    return sorted(names, key=rank)


def _once(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return list({(row["server"], row["model"]): row for row in rows}.values())


def _first_line(row: dict[str, Any]) -> str:
    return str(row["reason"]).partition("; its log")[0]


def _median(values: Iterable[float]) -> float:
    return statistics.median(values)
