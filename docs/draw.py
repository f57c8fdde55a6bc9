"""Drawings of the documents: `python -m docs.draw`. The rooms and their arrows come from the imports of `service/`."""

import ast
import itertools
import statistics
from pathlib import Path
from typing import NamedTuple
from xml.sax.saxutils import escape

DOCS = Path(__file__).resolve().parent
SERVICE = DOCS.parent / "service"
STYLE = """
  .paper { fill: #ffffff; stroke: #d0d7de }
  .box { fill: #f3f6fa; stroke: #57606a }
  .main { fill: #ddf4e4; stroke: #1a7f37 }
  text { fill: #1f2328; font: 14px system-ui, sans-serif; text-anchor: middle }
  .small { font-size: 12px; fill: #57606a }
  .left { text-anchor: start }
  .arrow { fill: none; stroke: #57606a; stroke-width: 1.4; marker-end: url(#head) }
  #head path { fill: #57606a }
  @media (prefers-color-scheme: dark) {
    .paper { fill: #161b22; stroke: #3d444d }
    .box { fill: #22272e; stroke: #9198a1 }
    .main { fill: #12351f; stroke: #3fb950 }
    text { fill: #e6edf3 }
    .small { fill: #9198a1 }
    .arrow { stroke: #9198a1 }
    #head path { fill: #9198a1 }
  }
"""


class Box(NamedTuple):
    """A rectangle by its centre, in pixels, with its lines of text. The lines after the first are small."""

    x: float
    y: float
    lines: tuple[str, ...]
    width: float = 130
    height: float = 46
    kind: str = "box"

    def draw(self) -> str:
        """Return the rectangle and its text as SVG."""
        corner = f'x="{self.x - self.width / 2:g}" y="{self.y - self.height / 2:g}"'
        parts = [f'<rect class="{self.kind}" {corner} width="{self.width:g}" height="{self.height:g}" rx="6"/>']
        top = self.y - 8.5 * (len(self.lines) - 1) + 5
        for number, line in enumerate(self.lines):
            parts.append(write(self.x, top + 17 * number, line, "small" if number else ""))
        return "\n".join(parts)


def write(x: float, y: float, text: str, kind: str = "") -> str:
    """Return a line of text as SVG."""
    return f'<text x="{x:g}" y="{y:g}"{f" class={kind!r}" if kind else ""}>{escape(text)}</text>'


def link(*points: tuple[float, float]) -> str:
    """Return an arrow through these points as SVG."""
    return f'<path class="arrow" d="M {" L ".join(f"{round(x)} {round(y)}" for x, y in points)}"/>'


def across(left: Box, right: Box) -> str:
    """Return the arrow from a box to its neighbour on the right or on the left."""
    side = 1 if right.x > left.x else -1
    return link((left.x + side * left.width / 2, left.y), (right.x - side * (right.width / 2 + 2), right.y))


def down(upper: Box, lower: Box, shift: float = 0) -> str:
    """Return the arrow from a box to one below it, which it meets `shift` pixels right of the middle."""
    return link((upper.x + shift, upper.y + upper.height / 2), (lower.x + shift, lower.y - lower.height / 2 - 2))


def sheet(width: int, height: int, title: str, parts: list[str]) -> str:
    """Return a whole drawing. Its colours follow the reader's light or dark mode."""
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'role="img">\n<title>{escape(title)}</title>\n<style>{STYLE}</style>\n'
        '<defs><marker id="head" viewBox="0 0 10 10" refX="8" refY="5" markerWidth="7" markerHeight="7" '
        'orient="auto-start-reverse"><path d="M 0 0 L 10 5 L 0 10 z"/></marker></defs>\n'
        f'<rect class="paper" x="0.5" y="0.5" width="{width - 1}" height="{height - 1}" rx="10"/>\n'
    )
    return head + "\n".join(parts) + "\n</svg>\n"


def row(y: float, texts: list[tuple[str, ...]], *, left: float, step: float, width: float) -> list[Box]:
    """Return boxes of one height side by side."""
    return [Box(left + step * number, y, lines, width) for number, lines in enumerate(texts)]


def draw_overview() -> str:
    """Draw the two flows, which meet in the model store."""
    training = row(
        76,
        [
            ("folder", "a class a subfolder"),
            ("check, split", "by the pixels"),
            ("fit", "AlexNet, taught"),
            ("fold, calibrate", "honest scores"),
            ("export, evaluate", "SavedModel, int8"),
        ],
        left=84,
        step=158,
        width=132,
    )
    serving = row(
        246,
        [
            ("image", "any client"),
            ("inspect, decode", "strict limits"),
            ("resize", "224 x 224, sRGB"),
            ("micro-batch", "what waits now"),
            ("engine", "on CPU or GPU"),
            ("answer", "ranked labels"),
        ],
        left=84,
        step=158,
        width=132,
    )
    store = Box(716, 161, ("model_store/flowers/9", "verified, warmed, then switched to"), 236, 50, "main")
    parts = [write(18, 34, "flowers train", "left"), write(18, 204, "flowers serve", "left")]
    parts += [box.draw() for box in (*training, *serving, store)]
    parts += [across(*pair) for boxes in (training, serving) for pair in itertools.pairwise(boxes)]
    return sheet(958, 290, "Training writes versions into the store. Serving reads them.", [
        *parts, down(training[-1], store), down(store, serving[4]),
    ])  # fmt: skip


def draw_request() -> str:
    """Draw the way of one image through the service."""
    guard = Box(150, 60, ("connection", "wire/head_guard.py"), 190)
    route = Box(150, 150, ("route", "api/routes/predict.py"), 190, kind="main")
    admission = Box(430, 60, ("admission", "a ticket, or 429"), 190)
    upload = Box(430, 150, ("upload", "body to bytes, counted"), 190)
    predictor = Box(430, 250, ("predictor", "inspects, decides where to decode"), 250, kind="main")
    lane = Box(150, 350, ("lane", "small images"), 190)
    thread = Box(430, 350, ("decoding thread", "large images"), 190)
    process = Box(710, 350, ("decoding process", "huge ones, AVIF, TIFF, lossless WebP"), 262)
    batcher = Box(430, 450, ("micro-batch", "what waits when the lane is free"), 250, kind="main")
    engine = Box(430, 540, ("engine", "a row of probabilities for each image"), 250)
    answer = Box(150, 540, ("answer", "ranked, with its timings"), 190)
    boxes = (guard, route, admission, upload, predictor, lane, thread, process, batcher, engine, answer)
    middle, low = 300.0, 400.0
    parts = [
        down(guard, route),
        link((route.x + 40, route.y - 23), (route.x + 40, 105), (290, 105), (290, 60), (admission.x - 97, 60)),
        across(route, upload),
        down(upload, predictor),
        *(link((430, 273), (430, middle), (box.x, middle), (box.x, box.y - 25)) for box in (lane, thread, process)),
        *(link((box.x, box.y + 23), (box.x, low), (430, low), (430, 425)) for box in (lane, thread, process)),
        down(batcher, engine),
        across(engine, answer),
        write(600, 64, "Each stage has a bound.", "small left"),
        write(600, 82, "An image over a bound is refused at once.", "small left"),
    ]
    return sheet(890, 590, "The way of a request", [*parts, *(box.draw() for box in boxes)])


def draw_workers() -> str:
    """Draw the way of a connection to a worker, and what the workers share."""
    clients = Box(92, 136, ("connections", "to one address"), 140)
    supervisor = Box(318, 136, ("supervisor", "the ready worker with the fewest"), 236, kind="main")
    store = Box(318, 226, ("model_store", "each version for all, or for none"), 236)
    event_loop = "event loop, lane, decoders"
    workers = [Box(576, 46 + 90 * number, (f"worker {number}", event_loop), 190) for number in range(3)]
    board = Box(824, 136, ("board", "limits, metrics, readiness"), 200)
    boxes = (clients, supervisor, store, *workers, board)
    parts = [across(clients, supervisor), link((store.x, store.y - 23), (supervisor.x, supervisor.y + 25))]
    for worker in workers:
        parts.append(link((436, 136), (459, 136), (459, worker.y), (479, worker.y)))
        parts.append(link((671, worker.y), (697, worker.y), (697, 136), (722, 136)))
    return sheet(942, 272, "One address, and several workers behind it", [*parts, *(box.draw() for box in boxes)])


def read_imports() -> dict[str, set[str]]:
    """Return for each room of `service/` the rooms that its modules import."""
    arrows: dict[str, set[str]] = {}
    for path in sorted(SERVICE.rglob("*.py")):
        room = path.relative_to(SERVICE).parts[0].removesuffix(".py")
        if room.startswith("__"):
            continue
        known = arrows.setdefault(room, set())
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                names = [f"{node.module}.{alias.name}" for alias in node.names]
            known |= {name.split(".")[1] for name in names if name.startswith("service.")}
    return {room: {other for other in known if other in arrows and other != room} for room, known in arrows.items()}


def drop_implied(arrows: dict[str, set[str]]) -> dict[str, set[str]]:
    """Return the arrows without those that a way over other rooms implies."""

    def below(room: str) -> set[str]:
        return set().union(*({other} | below(other) for other in arrows[room]))

    return {
        room: {other for other in known if not any(other in below(way) for way in known if way != other)}
        for room, known in arrows.items()
    }


def arrange(arrows: dict[str, set[str]]) -> list[list[str]]:
    """Return the floors from the roof down. A room stands just below the lowest room that imports it.

    An arrow over several floors gets a place on each floor between, named after both its ends.
    """
    depths: dict[str, int] = {}

    def depth(room: str) -> int:
        if room not in depths:
            depths[room] = 1 + max((depth(other) for other in arrows if room in arrows[other]), default=-1)
        return depths[room]

    floors: list[list[str]] = [[] for _ in range(1 + max(map(depth, arrows)))]
    neighbours: dict[str, list[str]] = {}
    for room in sorted(arrows):
        floors[depth(room)].append(room)
        for other in sorted(arrows[room]):
            way = [room, *(f"{room} {other} {level}" for level in range(depth(room) + 1, depth(other))), other]
            for level, place in enumerate(way[1:-1], depth(room) + 1):
                floors[level].append(place)
            for upper, lower in itertools.pairwise(way):
                neighbours.setdefault(upper, []).append(lower)
                neighbours.setdefault(lower, []).append(upper)
    for _ in range(12):  # the order that crosses few arrows: each place goes where its neighbours are
        for floor in floors:
            places = {place: (n + 0.5) / len(each) for each in floors for n, place in enumerate(each)}
            pulls = {
                place: statistics.fmean(places[other] for other in neighbours.get(place, [place])) for place in floor
            }
            floor.sort(key=lambda place: (pulls[place], place))
    return floors


def draw_rooms() -> str:
    """Draw the rooms of `service/` and their imports. Arrows to `errors` are left out."""
    imports = read_imports()
    num_knowing = sum("errors" in known for known in imports.values())
    arrows = drop_implied({room: known - {"errors"} for room, known in imports.items() if room != "errors"})
    floors = arrange(arrows)
    width, step = 940, 88
    places = {
        place: (width * (number + 0.5) / len(floor), 50.0 + step * level)
        for level, floor in enumerate(floors)
        for number, place in enumerate(floor)
    }
    parts = []
    for room, known in arrows.items():
        x, y = places[room]
        for number, other in enumerate(sorted(known, key=lambda name: (places[name][0], name))):
            between = [places[place] for place in places if place.startswith(f"{room} {other} ")]
            start = x + 84 * ((number + 0.5) / len(known) - 0.5), y + 17
            target = places[other]
            shift = max(-40.0, min(40.0, ((between[-1][0] if between else start[0]) - target[0]) / 6))
            parts.append(link(start, *between, (target[0] + shift, target[1] - 19)))
    parts += [Box(*places[room], (room,), 112, 34, "main" if room == "cli" else "box").draw() for room in arrows]
    bottom = 50 + step * len(floors)
    parts.append(
        Box(width / 2, bottom, ("errors", f"known by {num_knowing} rooms, those arrows are left out"), 320).draw()
    )
    return sheet(width, bottom + 45, "The rooms of service/ and what they import", parts)


DRAWINGS = {
    "overview.svg": draw_overview,
    "request.svg": draw_request,
    "rooms.svg": draw_rooms,
    "workers.svg": draw_workers,
}


if __name__ == "__main__":
    for name, draw in DRAWINGS.items():
        (DOCS / "drawings" / name).write_text(draw(), encoding="utf-8")
