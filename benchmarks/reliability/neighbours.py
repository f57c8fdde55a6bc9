"""Hostile files and large photographs beside ordinary ones. Their neighbours and the probes are measured."""

import asyncio
import io
import multiprocessing
import subprocess
import sys
import tempfile
import time
from multiprocessing.connection import Connection as Pipe
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.reliability.replica import (
    Result,
    ask,
    capacity,
    cores_apart,
    p99_ms,
    replica,
    store_of_its_own,
    weighed,
)
from service.bench.connection import Connection, Response, parse_target
from service.bench.generator import Load
from service.bench.photographs import draw_flower

NUM_LARGE = 200
LARGE = (4000, 3000)
LONG_BODY = "JPEG of 2,000 scans"  # 13 MB, refused as soon as they are there

Answer = tuple[int, int, float]
"""Number of the request, status and seconds."""


class Beside:
    """Client that asks one question after another on connections of its own, and notes status and time.

    It has a process of its own, as large uploads would hold up the neighbours' generator.
    """

    def __init__(self, url: str, requests: list[bytes], connections: int, *, is_endless: bool) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_ask_beside, args=(url, requests, connections, is_endless, theirs))
        self._process.start()
        self._pipe.recv()  # it has begun

    def join(self) -> list[Answer]:
        """Wait until each request has its answer, and return the answers."""
        answers: list[Answer] = self._pipe.recv()
        self._process.join()
        return answers

    def stop(self) -> list[Answer]:
        """Stop asking, and return the answers."""
        self._pipe.send(None)
        return self.join()


def _ask_beside(
    url: str,
    requests: list[bytes],
    connections: int,
    is_endless: bool,
    pipe: "Pipe[Any, Any]",
) -> None:
    target = parse_target(url, "")
    waiting = list(range(len(requests)))[::-1]
    answers: list[Answer] = []

    async def ask_on() -> None:
        connection = Connection(target)
        while waiting and not pipe.poll():
            number = waiting.pop()
            if is_endless:
                waiting.insert(0, number)
            begun = time.perf_counter()
            response: Response = await connection.ask(requests[number], 30)
            answers.append((number, response.status, time.perf_counter() - begun))
        connection.close()

    async def ask_all() -> None:
        await asyncio.gather(*(ask_on() for _ in range(connections)))

    pipe.send(None)
    asyncio.run(ask_all())
    pipe.send(answers)


def hostile_files() -> dict[str, bytes]:
    """Return the hostile files of the tests by their names."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "support.hostile_files", folder]
        subprocess.run(command, cwd=Path(__file__).parents[2] / "tests", check=True)
        return {path.name: path.read_bytes() for path in sorted(Path(folder).iterdir())}


def send_large_photographs(url: str, num_photographs: int) -> tuple[list[Answer], list[Answer]]:
    """Send photographs of 12 million pixels, 16 at a time, and ask /livez meanwhile. Return the answers of both."""
    buffer = io.BytesIO()
    Image.open(io.BytesIO(draw_flower())).resize(LARGE).save(buffer, "JPEG", quality=90)
    photograph = parse_target(url, "/predict").post(buffer.getvalue(), "image/jpeg")
    probes = Beside(url, [b"GET /livez HTTP/1.1\r\nHost: flowers\r\n\r\n"], 1, is_endless=True)
    answers = Beside(url, [photograph] * num_photographs, 16, is_endless=False).join()
    return answers, probes.stop()


def measure(scale: float, engine: str) -> Result:
    """Measure at 30 % of the capacity beside hostile files, beside long bodies and beside 200 large photographs."""
    result = Result()
    hostile = hostile_files()
    with (
        cores_apart() as cores,
        store_of_its_own() as store,
        replica(store, "--engine", engine, cores=cores) as service,
    ):
        post = parse_target(service.url, "/predict").post
        rate = 0.3 * capacity(service.url, 10 * scale)
        load = Load(connections=128, rate=rate, duration_s=30 * scale)
        calm = ask(service.url, load)
        calm_mb = service.resident_mb()
        with weighed(service.process.pid) as weights:
            senders = Beside(service.url, [post(data, "image/png") for data in hostile.values()], 2, is_endless=True)
            beside = ask(service.url, load)
            hostile_answers = senders.stop()
        hostile_mb = service.resident_mb()
        bodies = Beside(service.url, [post(hostile[LONG_BODY], "image/jpeg")], 2, is_endless=True)
        beside_bodies = ask(service.url, load)
        num_bodies = len(bodies.stop())

        large_answers, probe_answers = send_large_photographs(service.url, round(NUM_LARGE * scale))
        of_each = {
            name: [answer for answer in hostile_answers if answer[0] == number] for number, name in enumerate(hostile)
        }
        livez_ms = float(np.percentile([seconds for _, _, seconds in probe_answers], 99)) * 1000
        result.figures = {
            "rate": rate,
            "calm": calm.to_json(),
            "beside_hostile": beside.to_json(),
            "beside_large_bodies": beside_bodies.to_json(),
            "large_bodies_per_s": num_bodies / load.duration_s,
            "hostile_statuses": {name: sorted({status for _, status, _ in each}) for name, each in of_each.items()},
            "hostile_slowest_s": {
                name: max((seconds for *_, seconds in each), default=0.0) for name, each in of_each.items()
            },
            "resident_mb": {
                "calm": calm_mb,
                "most_beside_hostile": max(weights),
                "after_hostile": hostile_mb,
                "after_large": service.resident_mb(),
            },
            "large_s": round(sum(seconds for *_, seconds in large_answers) / len(large_answers), 3),
        }
        result.at_most(2, "p99 beside hostile files / p99 without", p99_ms(beside) / p99_ms(calm))
        result.at_most(2, "p99 beside large bodies / p99 without", p99_ms(beside_bodies) / p99_ms(calm))
        result.at_most(0, "failed or wrong answers beside them", beside.num_errors + beside_bodies.num_errors)
        result.at_most(0, "hostile files answered with 5xx", sum(status >= 500 for _, status, _ in hostile_answers))
        result.at_most(0, "large photographs not answered", sum(status != 200 for _, status, _ in large_answers))
        result.at_most(50, "p99 of /livez while large photographs are decoded, ms", livez_ms)
        result.at_most(0, "/livez not answered", sum(status != 200 for _, status, _ in probe_answers))
    return result
