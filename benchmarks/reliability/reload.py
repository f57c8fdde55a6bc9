"""New versions under load. No request fails, and latency stays."""

import threading
from functools import partial
from pathlib import Path

from benchmarks.reliability.replica import (
    Replica,
    Result,
    ask,
    capacity,
    p99_ms,
    publish_copy,
    replica,
    store_of_its_own,
    wait_for,
)
from service.bench.generator import Load

NUM_RELOADS = 10
SHARE = 0.5  # of the capacity


def measure(scale: float, engine: str) -> Result:
    """Measure at half the capacity, first undisturbed, then with one reload after another."""
    result = Result()
    with store_of_its_own() as store, replica(store, "--engine", engine, "--reload-interval-s", "1") as service:
        rate = SHARE * capacity(service.url, 10 * scale)
        load = Load(connections=64, rate=rate, duration_s=60 * scale)
        calm = ask(service.url, load)
        reloads = threading.Thread(target=_reload, args=(store, service, max(2, round(NUM_RELOADS * scale))))
        reloads.start()
        disturbed = ask(service.url, load)
        reloads.join()
        result.figures = {
            "rate": rate,
            "calm": calm.to_json(),
            "reloading": disturbed.to_json(),
            "num_reloads": service.live_version() - 1,
        }
        result.at_most(0, "failed requests while versions are switched", disturbed.num_errors)
        result.at_most(1.5, "p99 while reloading / p99 without", p99_ms(disturbed) / p99_ms(calm))
    return result


def _reload(store: Path, service: Replica, num_reloads: int) -> None:
    for version in range(2, num_reloads + 2):
        publish_copy(store, version)
        wait_for(partial(_is_live, service, version), f"version {version} is live")


def _is_live(service: Replica, version: int) -> bool:
    # By its log: to ask it fifty times a second would disturb what is measured.
    return any(event["version"] == version for event in service.events("model loaded"))
