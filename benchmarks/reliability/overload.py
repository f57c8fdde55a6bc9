"""Five times the capacity for a minute. Accepted requests are answered as ever, all others refused at once."""

import asyncio
import multiprocessing
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from benchmarks.reliability.replica import (
    Replica,
    Result,
    ask,
    capacity,
    cores_apart,
    p99_ms,
    question,
    replica,
    resident_mb,
    status_of,
    store_of_its_own,
    wait_for,
)
from service.bench.connection import Connection as HttpConnection
from service.bench.connection import parse_target
from service.bench.generator import Load
from service.bench.photographs import draw_flower


@dataclass
class Seen:
    """Answers that a bystander has noticed."""

    refused_s: list[float] = field(default_factory=list)
    most_mb: float = 0.0
    num_not_ready: int = 0


class Watch:
    """Client that asks for a prediction and for readiness ten times a second, and notes the answers.

    It has a process of its own. Beside the flood's generator its clock would show that one's load.
    """

    def __init__(self, service: Replica) -> None:
        context = multiprocessing.get_context("spawn")
        self._mine, theirs = context.Pipe()
        self._process = context.Process(target=_watch, args=(service.url, service.process.pid, theirs))
        self._process.start()
        self._mine.recv()  # it has begun

    def stop(self) -> Seen:
        """Stop asking, and return what was seen."""
        self._mine.send(None)
        seen = self._mine.recv()
        self._process.join()
        assert isinstance(seen, Seen)
        return seen


def _watch(url: str, pid: int, pipe: "Connection[Any, Any]") -> None:
    pipe.send(None)
    pipe.send(asyncio.run(_ask_until(url, pid, pipe.poll)))


async def _ask_until(url: str, pid: int, is_over: Callable[[], bool]) -> Seen:
    seen = Seen()
    target = parse_target(url, "/predict")
    request = question(target, draw_flower()).request
    connection = HttpConnection(target)
    while not is_over():
        begun = time.perf_counter()
        response = await connection.ask(request, 30)
        if response.status == 429:
            seen.refused_s.append(time.perf_counter() - begun)
        seen.num_not_ready += status_of(f"{url}/readyz") != 200
        seen.most_mb = max(seen.most_mb, resident_mb(pid))
        await asyncio.sleep(0.1)
    connection.close()
    return seen


def measure(scale: float, engine: str) -> Result:
    """Measure the capacity, 90 % of it, then 500 %, then 50 %, and the capacity again."""
    result = Result()
    with (
        cores_apart() as cores,
        store_of_its_own() as store,
        replica(store, "--engine", engine, "--max-connections", "4096", cores=cores) as service,
    ):
        peak = capacity(service.url, 20 * scale)
        busy = ask(service.url, Load(connections=512, rate=0.9 * peak, duration_s=30 * scale))
        calm_mb = service.resident_mb()
        watch = Watch(service)
        flooded = ask(service.url, Load(connections=2048, rate=5 * peak, warm_up_s=5, duration_s=60 * scale))
        seen = watch.stop()
        recovered_s = wait_for(lambda: service.metric("flowers_queue_images") == 0, "the queue is empty")
        after = ask(service.url, Load(connections=64, rate=0.5 * peak, warm_up_s=2, duration_s=10 * scale))
        peak_afterwards = capacity(service.url, 20 * scale)
        refused_ms = float(np.percentile(seen.refused_s, 99)) * 1000 if seen.refused_s else 0.0
        others = {kind: count for kind, count in flooded.errors.items() if kind != "/problems/overloaded"}
        result.figures = {
            "peak_per_s": peak,
            "peak_afterwards_per_s": peak_afterwards,
            "at_90_percent": busy.to_json(),
            "at_500_percent": flooded.to_json(),
            "afterwards": after.to_json(),
            "refused_ms_p99": refused_ms,
            "resident_mb": {"before": calm_mb, "most": seen.most_mb},
        }
        share = flooded.answers_per_s / ((peak + peak_afterwards) / 2)  # a machine may be slower in its next minute
        result.at_least(0.9, "answers per second / peak", share)
        result.at_most(2, "p99 of the accepted / p99 at 90 %", p99_ms(flooded) / p99_ms(busy))
        result.at_most(50, "p99 of a refusal, ms", refused_ms)
        result.at_most(0, "wrong answers, resets, anything but 200 and 429", sum(others.values()))
        result.at_most(0, "times not ready", seen.num_not_ready)
        result.at_most(256 * 1.048576, "memory on top, MB", seen.most_mb - calm_mb)
        result.at_most(2, "seconds until the queue is empty", recovered_s)
        result.at_most(0, "errors afterwards, from 2 s on", after.num_errors)
    return result
