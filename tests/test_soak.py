"""The short form of `python -m benchmarks.reliability soak`: what is held does not grow with what was answered."""

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from support.drawing import draw_photograph, encode
from support.serving import served

NUM_WARM, NUM_PREDICTIONS = 300, 1500
PHOTO = encode(draw_photograph(2, seed=300))


def held_by(pid: int) -> tuple[int, int, int]:
    """Resident bytes, threads, open files."""
    process = Path(f"/proc/{pid}")
    resident = int((process / "status").read_text().split("VmRSS:")[1].split()[0]) * 1024
    return resident, len(list((process / "task").iterdir())), len(list((process / "fd").iterdir()))


@pytest.mark.long
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_memory_threads_and_files_stay_over_many_predictions(tiny_version: Path) -> None:
    with served(tiny_version, "--no-access-log") as service, httpx.Client(base_url=service.url) as client:
        service.wait_for("model loaded")

        def predict(times: int) -> None:
            for number in range(times):
                # Every tenth is broken: what goes wrong must not be kept, either.
                body = PHOTO if number % 10 else PHOTO[:2000]
                assert client.post("/predict", content=body).status_code == (200 if number % 10 else 422)

        with ThreadPoolExecutor(8) as senders:  # so that the service has all the threads that it wants
            list(senders.map(predict, [NUM_WARM // 8] * 8))
        warm = held_by(service.process.pid)
        predict(NUM_PREDICTIONS)
        after = held_by(service.process.pid)
    assert after[0] - warm[0] <= 20_000_000
    assert after[1] <= warm[1] + 1
    assert after[2] <= warm[2]
