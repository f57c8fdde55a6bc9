"""Drawings of the panels of a dashboard, from the answers of Prometheus to their queries."""

import math
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from docs.draw import write

COLOURS = ("#1a7f37", "#0969da", "#bf8700", "#cf222e", "#8250df", "#1b7c83", "#bc4c00", "#6e7781")
DARK_COLOURS = ("#3fb950", "#58a6ff", "#e3b341", "#ff7b72", "#bc8cff", "#39c5cf", "#f0883e", "#afb8c1")
STYLE = """
  .panel { fill: #f6f8fa; stroke: #d0d7de }
  .grid { stroke: #d0d7de; stroke-width: 0.6 }
  .line { fill: none; stroke-width: 1.5; stroke-linejoin: round }
  .dash { stroke-dasharray: 6 4 }
  .area { fill-opacity: 0.6 }
  .tiny { font-size: 11px; fill: #57606a }
  .title { font-size: 12.5px; font-weight: 600; text-anchor: start }
  .row { font-size: 14px; font-weight: 600; text-anchor: start }
  .big { font-size: 24px }
  .end { text-anchor: end }
  .red { fill: #cf222e } .orange { fill: #bc4c00 } .green { fill: #1a7f37 }
  @media (prefers-color-scheme: dark) {
    .panel { fill: #0d1117; stroke: #3d444d }
    .grid { stroke: #3d444d }
    .tiny { fill: #9198a1 }
    .red { fill: #ff7b72 } .orange { fill: #f0883e } .green { fill: #3fb950 }
  }
"""
_SCALES = {
    "s": ((1.0, "s"), (1e-3, "ms"), (1e-6, "us")),
    "bytes": ((2.0**30, "GiB"), (2.0**20, "MiB"), (2.0**10, "KiB"), (1.0, "B")),
}
_SUFFIXES = {"reqps": " req/s", "cps": " /s"}
_CHARACTER = 6.1  # pixels of a character of 11 pixels
_LEGEND_LINES = 2


class Series(NamedTuple):
    """The answer to a query: its labels, its name in the legend, and points of seconds and values."""

    labels: dict[str, str]
    name: str
    points: list[tuple[float, float]]


class Frame(NamedTuple):
    """The rectangle of a panel, in pixels."""

    x: float
    y: float
    width: float
    height: float


def colours() -> str:
    """Return the style of all series, for light and for dark mode."""

    def rules(palette: tuple[str, ...]) -> str:
        lines = (f".s{n} {{ stroke: {colour} }} .f{n} {{ fill: {colour} }}" for n, colour in enumerate(palette))
        return "\n  ".join(lines)

    return f"  {rules(COLOURS)}\n  @media (prefers-color-scheme: dark) {{\n  {rules(DARK_COLOURS)}\n  }}\n"


def say(value: float, unit: str) -> str:
    """Return a value with its unit, in the few characters that an axis has room for."""
    if not value:
        return "0"
    if unit == "percentunit":
        return f"{100 * value:.3g} %"
    if unit in _SCALES:
        scale, name = next((pair for pair in _SCALES[unit] if value >= pair[0]), _SCALES[unit][-1])
        return f"{value / scale:.3g} {name}"
    return f"{value:.3g}{_SUFFIXES.get(unit, '')}"


def ceiling(value: float, unit: str) -> float:
    """Return the next round number that is not below the value. For bytes it is a power of two."""
    if value <= 0:
        return 1.0
    if unit == "bytes":
        return 2.0 ** math.ceil(math.log2(value))
    power = 10.0 ** math.floor(math.log10(value))
    return next(power * step for step in (1, 2, 2.5, 5, 10) if power * step >= value * (1 - 1e-9))


def draw_panel(panel: dict[str, Any], frame: Frame, series: list[Series], span_s: float) -> Iterator[str]:
    """Yield the panel as SVG."""
    x, y, width, height = frame
    yield f'<rect class="panel" x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="4"/>'
    yield write(frame.x + 9, frame.y + 17, panel["title"], "title")
    kind = {"stat": _draw_stat, "table": _draw_table, "heatmap": _draw_heatmap, "timeseries": _draw_lines}[
        panel["type"]
    ]
    yield from kind(panel, frame, series, span_s)


def _draw_stat(panel: dict[str, Any], frame: Frame, series: list[Series], _: float) -> Iterator[str]:
    defaults = panel["fieldConfig"]["defaults"]
    values = [points[-1][1] for _, _, points in series]
    if not values:
        yield write(frame.x + frame.width / 2, frame.y + frame.height / 2 + 16, defaults["noValue"], "big")
        return
    (value,) = values
    steps = [step for step in defaults["thresholds"]["steps"] if step["value"] is None or value >= step["value"]]
    text = say(value, defaults["unit"])
    for mapping in defaults.get("mappings", []):
        text = mapping["options"].get(f"{value:g}", {"text": text})["text"]
    yield write(frame.x + frame.width / 2, frame.y + frame.height / 2 + 16, text, f"big {steps[-1]['color']}")


def _draw_table(panel: dict[str, Any], frame: Frame, series: list[Series], _: float) -> Iterator[str]:
    options = panel["transformations"][0]["options"]
    columns = sorted(options["indexByName"], key=options["indexByName"].__getitem__)
    x = frame.x + 9
    for column in columns:
        cells = [one.labels.get(column, "") for one in series]
        heading = options["renameByName"].get(column, column)
        yield write(round(x, 1), frame.y + 42, heading, "tiny left")
        for line, cell in enumerate(cells):
            yield write(round(x, 1), frame.y + 62 + 18 * line, cell, "small left")
        x += 18 + 7 * max(map(len, [heading, *cells]))


def _plot_of(frame: Frame, num_legend_lines: int) -> Frame:
    """Return the place of the curves: right of the axis, and above the times and the legend."""
    return Frame(frame.x + 64, frame.y + 30, frame.width - 84, frame.height - 50 - 15 * num_legend_lines)


def _draw_axes(plot: Frame, texts: list[str], span_s: float) -> Iterator[str]:
    for number, text in enumerate(texts):
        y = plot.y + plot.height * (1 - number / (len(texts) - 1))
        yield f'<path class="grid" d="M {plot.x:g} {y:.1f} h {plot.width:g}"/>'
        yield write(plot.x - 5, round(y + 4, 1), text, "tiny end")
    for minute in range(int(span_s // 60) + 1):
        yield write(
            round(plot.x + plot.width * 60 * minute / span_s, 1), plot.y + plot.height + 14, f"{minute} min", "tiny"
        )


def _draw_legend(names: list[str], frame: Frame) -> tuple[list[str], int]:
    """Return the legend, and its number of lines. Names without a place in it are counted."""
    parts, x, line = [], frame.x + 10, 0
    lines: list[list[tuple[float, int, str]]] = [[]]
    for number, name in enumerate(names):
        width = 22 + _CHARACTER * len(name)
        if x + width > frame.x + frame.width - 6 and lines[-1]:
            x, line = frame.x + 10, line + 1
            lines.append([])
        lines[line].append((x, number, name))
        x += width
    kept = lines[:_LEGEND_LINES]
    for line, entries in enumerate(kept):
        y = frame.y + frame.height - 8 - 15 * (len(kept) - 1 - line)
        for x, number, name in entries:
            parts.append(
                f'<rect class="f{number % len(COLOURS)}" x="{x:g}" y="{y - 8:g}" width="10" height="8" rx="2"/>'
            )
            parts.append(write(round(x + 14, 1), y, name, "tiny left"))
    left_out = sum(map(len, lines[_LEGEND_LINES:]))
    if left_out:
        parts.append(write(frame.x + frame.width - 8, frame.y + 17, f"and {left_out} more", "tiny end"))
    return parts, len(kept)


def _draw_lines(panel: dict[str, Any], frame: Frame, series: list[Series], span_s: float) -> Iterator[str]:
    defaults = panel["fieldConfig"]["defaults"]
    unit, custom = defaults["unit"], defaults["custom"]
    dashed = {override["matcher"]["options"] for override in panel["fieldConfig"]["overrides"]}
    legend, num_lines = _draw_legend([one.name for one in series], frame)
    plot = _plot_of(frame, num_lines)
    stacked = "stacking" in custom
    base: dict[float, float] = {}
    curves = []
    for one in series:
        points = [(at, value + base.get(at, 0.0)) for at, value in one.points if math.isfinite(value)]
        lower = [(at, base.get(at, 0.0)) for at, _ in points]
        if stacked:
            base |= dict(points)
        curves.append((one.name, points, lower))
    top = defaults.get("max") or ceiling(
        max((value for _, points, _ in curves for _, value in points), default=1.0), unit
    )
    yield from _draw_axes(plot, [say(top * share, unit) for share in (0, 0.5, 1)], span_s)

    def place(points: list[tuple[float, float]]) -> str:
        return "L".join(
            f"{plot.x + plot.width * at / span_s:.1f} {plot.y + plot.height * (1 - value / top):.1f}"
            for at, value in points
        )

    for step in defaults.get("thresholds", {}).get("steps", []):
        if step["value"] is not None and step["value"] <= top:
            y = plot.y + plot.height * (1 - step["value"] / top)
            yield f'<path class="line dash s3" d="M{plot.x:g} {y:.1f}h{plot.width:g}"/>'
    for number, (name, points, lower) in enumerate(curves):
        colour = number % len(COLOURS)
        if stacked and points:
            yield f'<path class="area f{colour}" d="M{place(points)}L{place(lower[::-1])}z"/>'
        elif points:
            yield f'<path class="line s{colour}{" dash" if name in dashed else ""}" d="M{place(points)}"/>'
    yield from legend


def _draw_heatmap(panel: dict[str, Any], frame: Frame, series: list[Series], span_s: float) -> Iterator[str]:
    """Buckets of `le` are cumulative. A cell is what its bucket has more than the one below."""
    rows = sorted((float(one.labels["le"]), dict(one.points)) for one in series if one.labels["le"] != "+Inf")
    plot = _plot_of(frame, 0)
    yield from _draw_axes(plot, [say(share, panel["options"]["yAxis"]["unit"]) for share in (0, 0.5, 1)], span_s)
    times = sorted(rows[0][1])
    width = plot.width * (times[1] - times[0]) / span_s
    below: dict[float, float] = dict.fromkeys(times, 0.0)
    lower, cells = 0.0, []
    for upper, counts in rows:
        cells += [
            (at, lower, upper, counts[at] - below[at]) for at in times[:-1] if counts.get(at, 0.0) > below[at] + 1e-9
        ]
        below, lower = below | counts, upper
    most = max((count for *_, count in cells), default=1.0)
    levels: dict[int, list[str]] = {}
    for at, low, high, count in cells:
        x, y = plot.x + plot.width * at / span_s, plot.y + plot.height * (1 - high)
        cell = f"M{x:.1f} {y:.1f}h{width:.1f}v{plot.height * (high - low):.1f}h-{width:.1f}z"
        levels.setdefault(math.ceil(6 * math.sqrt(count / most)), []).append(cell)
    for level, paths in sorted(levels.items()):
        yield f'<path class="f0" fill-opacity="{level / 6:.2f}" d="{"".join(paths)}"/>'


def name_series(form: str, labels: dict[str, str]) -> str:
    """Return the name of a series by the form of its legend, such as `{{route}} {{status}}`."""
    return re.sub(r"\{\{(\w+)\}\}", lambda match: labels.get(match[1], ""), form)
