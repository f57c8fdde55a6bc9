"""Drawing of the dashboard of docker/grafana, without Grafana: `make dashboard`. It takes five minutes.

Two workers serve the shipped model. A real Prometheus scrapes them, with the alerts that ship. Clients send the samples
of the page in many variants, wrong requests, and more than fits the queue. Two versions are published meanwhile.
"""

import asyncio
import io
import json
import math
import random
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import yaml
from PIL import Image, ImageFilter

from docs import draw, panels

ROOT = Path(__file__).resolve().parent.parent
DASHBOARD = ROOT / "docker" / "grafana" / "flowers.json"
PROMETHEUS = ROOT / "docker" / "prometheus"
SAMPLES = ROOT / "service" / "api" / "page" / "samples"
INSTANCE = "flowers:8000"  # as in the compose stack
SCRAPE_S, STEP_S = 2, 4
RATE_INTERVAL_S = 5 * SCRAPE_S  # Grafana takes at least four
LENGTH_S = 240
RUSH_S = range(80, 120)
NUM_STEADY, NUM_RUSHING, MAX_QUEUE_SIZE = 12, 60, 32
UNLIKE_S = range(170, LENGTH_S)
WIDTH, COLUMN, UNIT, GAP, HEAD = 980, 40, 23, 8, 46


@contextmanager
def running(command: list[str], log: Path) -> Iterator[None]:
    """Run a program until the end of the block. Its words go to a file, so that none is dropped."""
    with log.open("wb") as words, subprocess.Popen(command, stderr=words) as process:  # noqa: S603 - our own programs
        try:
            yield
        finally:
            process.terminate()


def wait_for(find: Callable[[], Any], what: str) -> Any:
    """Return what `find` gives, once it gives something."""
    until = time.monotonic() + 60
    while not (found := find()):
        if time.monotonic() > until:
            raise RuntimeError(f"{what} did not come")
        time.sleep(0.2)
    return found


def make_photographs(seed: int) -> dict[str, list[bytes]]:
    """Return variants of each sample by its class: crops of it, and under "unlike" blurred ones in odd colours."""
    chance = random.Random(seed)  # noqa: S311 - no secret
    photographs: dict[str, list[bytes]] = {"unlike": []}
    for path in sorted(SAMPLES.glob("*.jpg")):
        image = Image.open(path).convert("RGB")
        for _ in range(12):
            share = chance.uniform(0.55, 1)
            left, top = (chance.uniform(0, 1 - share) * side for side in image.size)
            crop = image.crop((int(left), int(top), int(left + share * image.width), int(top + share * image.height)))
            photographs.setdefault(path.stem, []).append(encode(crop))
            tinted = Image.merge("RGB", crop.split()[::-1]).filter(ImageFilter.GaussianBlur(chance.uniform(2, 7)))
            photographs["unlike"].append(encode(tinted))
    return photographs


def encode(image: Image.Image) -> bytes:
    """Return the image as JPEG."""
    file = io.BytesIO()
    image.save(file, "JPEG", quality=85)
    return file.getvalue()


async def send_traffic(url: str, store: Path) -> None:
    """Send requests of all kinds for `LENGTH_S` seconds, and publish a good and a bad version into the store."""
    photographs = make_photographs(7)
    chance = random.Random(8)  # noqa: S311 - no secret
    names = [name for name in photographs if name != "unlike"]
    begin = time.monotonic()
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=url, timeout=120, limits=limits) as client:

        def choose(at: float) -> bytes:
            if int(at) in UNLIKE_S and chance.random() < 0.6:
                return chance.choice(photographs["unlike"])
            favourite = names[int(at / LENGTH_S * len(names))]
            return chance.choice(photographs[favourite if chance.random() < 0.35 else chance.choice(names)])

        async def visit(number: int) -> None:
            while (at := time.monotonic() - begin) < LENGTH_S:
                if number >= NUM_STEADY and int(at) not in RUSH_S:
                    await asyncio.sleep(1)
                    continue
                kind = chance.random()
                if kind < 0.93:
                    await client.post("/predict", content=choose(at))
                elif kind < 0.95:
                    await client.post("/predict/batch", files=[("file", choose(at)) for _ in range(4)])
                elif kind < 0.954:
                    await client.post("/explain", content=choose(at))
                elif kind < 0.98:
                    await client.post("/predict", content=b"no image")
                elif kind < 0.99:
                    await client.post("/predict", content=photographs["roses"][0][:900])
                else:
                    await client.get("/nowhere")
                wave = 1 + 0.5 * math.sin(at / 20)
                await asyncio.sleep(0 if number >= NUM_STEADY else chance.uniform(0.2, 0.5) * wave)

        async def publish() -> None:
            versions = sorted(int(path.name) for path in store.iterdir() if path.name.isdigit())
            await asyncio.sleep(140)
            shutil.copytree(store / str(versions[-1]), store / "new")
            (store / "new").rename(store / str(versions[-1] + 1))
            await asyncio.sleep(60)
            shutil.copytree(store / str(versions[-1]), store / "new")
            (store / "new" / "saved_model.pb").write_bytes(b"damaged")
            (store / "new").rename(store / str(versions[-1] + 2))

        await asyncio.gather(publish(), *(visit(number) for number in range(NUM_STEADY + NUM_RUSHING)))


def configure(target: str, folder: Path) -> Path:
    """Write the configuration of the compose stack for another address and a shorter interval, and return its path."""
    document = yaml.safe_load((PROMETHEUS / "compose.yml").read_text(encoding="utf-8"))
    document["global"] = dict.fromkeys(document["global"], f"{SCRAPE_S}s")
    (scraping,) = document["scrape_configs"]
    scraping["static_configs"] = [{"targets": [target], "labels": {"instance": INSTANCE}}]
    del scraping["authorization"]
    shutil.copy(PROMETHEUS / "alerts.yml", folder)
    path = folder / "prometheus.yml"
    path.write_text(yaml.safe_dump(document), encoding="utf-8")
    return path


def ask(client: httpx.Client, target: dict[str, Any], begin: float, end: float) -> list[panels.Series]:
    """Return the series that answer a query of the dashboard. Their times count from `begin`."""
    query = target["expr"].replace("$instance", INSTANCE).replace("$__rate_interval", f"{RATE_INTERVAL_S}s")
    span = {"time": end} if target["instant"] else {"start": begin, "end": end, "step": STEP_S}
    answer = client.get("query" if target["instant"] else "query_range", params={"query": query, **span}).json()
    if answer["status"] != "success":
        raise RuntimeError(f"{query}: {answer['error']}")
    return [
        panels.Series(
            one["metric"],
            panels.name_series(target["legendFormat"], one["metric"]),
            [(at - begin, float(value)) for at, value in one.get("values") or [one["value"]]],
        )
        for one in answer["data"]["result"]
    ]


def draw_dashboard(dashboard: dict[str, Any], ask_for: Callable[[dict[str, Any]], list[panels.Series]]) -> str:
    """Return the drawing. `ask_for` answers each target of a panel."""
    parts = [f"<style>{panels.STYLE}{panels.colours()}</style>", draw.write(16, 29, dashboard["title"], "row")]
    parts.append(draw.write(WIDTH - 16, 29, f"replica {INSTANCE}, scraped every {SCRAPE_S} s", "tiny end"))
    height = 0.0
    for panel in dashboard["panels"]:
        place = panel["gridPos"]
        x, y = 10 + COLUMN * place["x"], HEAD + UNIT * place["y"]
        if panel["type"] == "row":
            parts.append(draw.write(x + 6, y + 17, panel["title"], "row"))
            continue
        frame = panels.Frame(x, y, COLUMN * place["w"] - GAP, UNIT * place["h"] - GAP)
        series = [one for target in panel["targets"] for one in ask_for(target)]
        parts += panels.draw_panel(panel, frame, series, LENGTH_S)
        height = max(height, frame.y + frame.height)
    return draw.sheet(WIDTH, round(height + 12), "The dashboard after four minutes of traffic", parts)


def main() -> None:
    """Write the drawing."""
    dashboard = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shutil.copytree(ROOT / "model_store", folder / "model_store")
        settings = f"--workers 2 --device cpu --log-format json --reload-interval-s 1 --max-queue-size {MAX_QUEUE_SIZE}"
        serve = [
            "-m",
            "service",
            "serve",
            "--port",
            "0",
            "--model-store",
            str(folder / "model_store"),
            *settings.split(),
        ]
        log = folder / "log"
        with running([sys.executable, *serve], log):
            wait_for(lambda: '"model loaded"' in log.read_text(encoding="utf-8"), "a loaded model")
            (url,) = set(re.findall(r'"url": ?"([^"]+)"', log.read_text(encoding="utf-8")))
            with socket.create_server(("127.0.0.1", 0)) as free:
                address = f"127.0.0.1:{free.getsockname()[1]}"
            config = configure(url.removeprefix("http://"), folder)
            scrape = ["prometheus", f"--config.file={config}", f"--storage.tsdb.path={folder / 'data'}",
                      f"--web.listen-address={address}"]  # fmt: skip
            with (
                running(scrape, folder / "log-of-prometheus"),
                httpx.Client(base_url=f"http://{address}/api/v1") as client,
            ):

                def scraped() -> bool:
                    try:
                        return bool(
                            client.get("query", params={"query": "flowers_ready == 1"}).json()["data"]["result"]
                        )
                    except httpx.TransportError:
                        return False

                wait_for(scraped, "a first scrape")
                begin = time.time()
                asyncio.run(send_traffic(url, folder / "model_store" / "flowers"))
                time.sleep(2 * SCRAPE_S)
                drawing = draw_dashboard(dashboard, lambda target: ask(client, target, begin, begin + LENGTH_S))
    (ROOT / "docs" / "drawings" / "dashboard.svg").write_text(drawing, encoding="utf-8")


if __name__ == "__main__":
    main()
