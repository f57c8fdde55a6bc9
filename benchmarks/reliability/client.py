"""The Python client sends ten thousand photographs while the service restarts twice. Each has one result."""

import threading
import time
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.drawn import draw_photograph
from benchmarks.reliability.replica import Replica, Result, replica, store_of_its_own
from service.client import Client, Prediction

NUM_PHOTOGRAPHS = 10_000
NUM_DRAWN = 50  # the files are links to these
SIZE = (96, 72)
CONCURRENCY = 8
TOLERANCE = 0.001  # of a probability, as in other company the sums of int8 layers may differ in the last bits


def measure(scale: float, engine: str) -> Result:
    """Restart the service with SIGTERM after a third of the photographs, and after two thirds."""
    result, count = Result(), int(NUM_PHOTOGRAPHS * scale)
    with (
        store_of_its_own() as store,
        TemporaryDirectory(prefix="flowers-client-") as folder,
        replica(store, "--engine", engine) as service,
        Client(service.url) as client,
    ):
        drawn = [draw_photograph(seed, SIZE) for seed in range(NUM_DRAWN)]
        expected = [scores_of(client.predict(photograph)) for photograph in drawn]
        link_photographs(Path(folder), drawn, count)
        exit_codes: list[int] = []
        restarts: list[threading.Thread] = []
        seen: Counter[Path] = Counter()
        errors: Counter[str] = Counter()
        num_wrong = 0
        slowest_s = 0.0
        begun = last = time.monotonic()
        for path, outcome in client.predict_folder(folder, concurrency=CONCURRENCY):
            slowest_s, last = max(slowest_s, time.monotonic() - last), time.monotonic()
            seen[path] += 1
            if not isinstance(outcome, Prediction):
                errors[type(outcome).__name__] += 1
            elif not is_near(scores_of(outcome), expected[int(path.stem) % NUM_DRAWN]):
                num_wrong += 1
            if seen.total() in (count // 3, 2 * count // 3):
                restarts.append(threading.Thread(target=restart, args=(service, exit_codes)))
                restarts[-1].start()
        duration_s = time.monotonic() - begun
        for thread in restarts:
            thread.join()
    result.at_least(count, "photographs with a result", len(seen))
    result.at_most(count, "results", seen.total())
    result.at_most(0, "photographs with an error", errors.total())
    result.at_most(0, "wrong predictions", num_wrong)
    result.at_least(2, "restarts that ended with 0", exit_codes.count(0))
    result.figures = {
        "concurrency": CONCURRENCY,
        "duration_s": round(duration_s, 1),
        "results_per_s": round(count / duration_s, 1),
        "longest_wait_for_a_result_s": round(slowest_s, 2),
        "errors": dict(errors),
    }
    return result


def restart(service: Replica, exit_codes: list[int]) -> None:
    """Stop the service with SIGTERM, and start it again on its port."""
    exit_codes.append(service.stop())
    service.start()


def link_photographs(folder: Path, drawn: list[bytes], count: int) -> None:
    """Fill a folder with links to the drawn photographs, in turn."""
    for number in range(count):
        path, first = folder / f"{number:05d}.jpg", folder / f"{number % len(drawn):05d}.jpg"
        if path == first:
            path.write_bytes(drawn[number])
        else:
            path.hardlink_to(first)


def scores_of(prediction: Prediction) -> dict[str, float]:
    """Return the probability of each label."""
    return {score.label: score.probability for score in prediction.predictions}


def is_near(scores: dict[str, float], expected: dict[str, float]) -> bool:
    """Return whether the probabilities are equal within the tolerance."""
    return all(abs(scores[label] - expected[label]) < TOLERANCE for label in expected)
