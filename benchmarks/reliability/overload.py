"""Five times what it can do, for a minute: what is accepted is answered as ever, the rest is refused at once."""

import asyncio
import threading
import time

import numpy as np

from benchmarks.reliability.replica import (
    Replica,
    Result,
    ask,
    capacity,
    p99_ms,
    question,
    replica,
    status_of,
    store_of_its_own,
    wait_for,
)
from service.load.connection import Connection, parse_target
from service.load.generator import Load
from service.load.photographs import draw_flower


class Watch(threading.Thread):
    """Asks for a prediction and for readiness ten times a second, and notes what comes of it."""

    def __init__(self, service: Replica) -> None:
        super().__init__()
        self._service = service
        self._stop_asking = threading.Event()
        self.refused_s: list[float] = []
        self.most_mb = 0.0
        self.num_not_ready = 0

    def run(self) -> None:
        """Until `stop`."""
        asyncio.run(self._watch())

    async def _watch(self) -> None:
        target = parse_target(self._service.url, "/predict")
        request = question(target, draw_flower()).request
        connection = Connection(target)
        while not self._stop_asking.is_set():
            begun = time.perf_counter()
            response = await connection.ask(request, 30)
            if response.status == 429:
                self.refused_s.append(time.perf_counter() - begun)
            self.num_not_ready += status_of(f"{self._service.url}/readyz") != 200
            self.most_mb = max(self.most_mb, self._service.resident_mb())
            await asyncio.sleep(0.1)
        connection.close()

    def stop(self) -> None:
        """Stop asking, wait for the last answer."""
        self._stop_asking.set()
        self.join()


def measure(scale: float, engine: str) -> Result:
    """90 % of the capacity, then 500 %, then 50 % again."""
    result = Result()
    with store_of_its_own() as store, replica(store, "--engine", engine) as service:
        peak = capacity(service.url, 20 * scale)
        busy = ask(service.url, Load(connections=512, rate=0.9 * peak, duration_s=30 * scale))
        calm_mb = service.resident_mb()
        watch = Watch(service)
        watch.start()
        flooded = ask(service.url, Load(connections=2048, rate=5 * peak, warm_up_s=5, duration_s=60 * scale))
        watch.stop()
        recovered_s = wait_for(lambda: service.metric("flowers_queue_images") == 0, "the queue is empty")
        after = ask(service.url, Load(connections=64, rate=0.5 * peak, warm_up_s=2, duration_s=10 * scale))
        refused_ms = float(np.percentile(watch.refused_s, 99)) * 1000 if watch.refused_s else 0.0
        others = {kind: count for kind, count in flooded.errors.items() if kind != "/problems/overloaded"}
        result.figures = {
            "peak_per_s": peak,
            "at_90_percent": busy.to_json(),
            "at_500_percent": flooded.to_json(),
            "afterwards": after.to_json(),
            "refused_ms_p99": refused_ms,
            "resident_mb": {"before": calm_mb, "most": watch.most_mb},
        }
        result.at_least(0.9, "answers per second / peak", flooded.answers_per_s / peak)
        result.at_most(2, "p99 of the accepted / p99 at 90 %", p99_ms(flooded) / p99_ms(busy))
        result.at_most(50, "p99 of a refusal, ms", refused_ms)
        result.at_most(0, "wrong answers, resets, anything but 200 and 429", sum(others.values()))
        result.at_most(0, "times not ready", watch.num_not_ready)
        result.at_most(256 * 1.048576, "memory on top, MB", watch.most_mb - calm_mb)
        result.at_most(2, "seconds until the queue is empty", recovered_s)
        result.at_most(0, "errors afterwards, from 2 s on", after.num_errors)
    return result
