"""Throughput of batches against as many single requests: `python -m benchmarks.serving.batch flower_photos/`.

In each round both send the same photographs to the same service, in turns. Single requests use kept connections. Every
answer of a batch must be the answer of the single request.
"""

import argparse
import asyncio
import itertools
import json
import statistics
import time
import uuid
from collections.abc import Callable, Coroutine, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from benchmarks.machine import RESULTS, describe_machine
from benchmarks.reliability.replica import replica, store_of_its_own
from benchmarks.serving.photographs import read_small
from benchmarks.serving.ratios import find_interval
from service.bench.connection import Connection, Response, parse_target
from service.bench.generator import run

_CONNECTIONS = 32  # of single requests
_TIMEOUT_S = 120.0
_TOLERANCE = 1e-3  # of a probability: float32 sums reorder with the batch size

_Answers = list[dict[str, Any]]
_Send = Callable[[], Coroutine[Any, Any, _Answers]]


def form_of(photographs: Sequence[bytes]) -> tuple[bytes, str]:
    """Return a multipart body with all photographs, and its content type."""
    boundary = uuid.uuid4().hex
    head = f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="image"\r\n\r\n'.encode()
    parts = (head + photograph + b"\r\n" for photograph in photographs)
    return b"".join(parts) + f"--{boundary}--\r\n".encode(), f"multipart/form-data; boundary={boundary}"


def read(response: Response) -> dict[str, Any]:
    """Return an answer, or end with its failure."""
    if response.status != 200:
        raise SystemExit(response.failure or response.body.decode())
    answer: dict[str, Any] = json.loads(response.body)
    return answer


class Sender:
    """The same photographs, in batches or one by one, on connections that are kept."""

    def __init__(self, url: str, photographs: Sequence[bytes], num_batches: int) -> None:
        single, batch = parse_target(url, "/predict"), parse_target(url, "/predict/batch")
        size = len(photographs) // num_batches
        self._singles = [single.post(*form_of([photograph])) for photograph in photographs]
        self._batches = [batch.post(*form_of(photographs[at : at + size])) for at in range(0, len(photographs), size)]
        self._of_singles = [Connection(single) for _ in range(_CONNECTIONS)]
        self._of_batches = [Connection(batch) for _ in self._batches]

    async def send_singles(self) -> _Answers:
        """Send each photograph as a request, and return the answers in order."""
        answers: dict[int, dict[str, Any]] = {}
        numbers = iter(range(len(self._singles)))

        async def ask_on(connection: Connection) -> None:
            for number in numbers:
                answers[number] = read(await connection.ask(self._singles[number], _TIMEOUT_S))

        await asyncio.gather(*map(ask_on, self._of_singles))
        return [answers[number] for number in sorted(answers)]

    async def send_batches(self) -> _Answers:
        """Send all batches at the same time, and return the answers in order."""
        asked = (one.ask(request, _TIMEOUT_S) for one, request in zip(self._of_batches, self._batches, strict=True))
        answers = [read(response) for response in await asyncio.gather(*asked)]
        return list(itertools.chain.from_iterable(answer["results"] for answer in answers))


async def measure(sender: Sender, num_rounds: int) -> dict[str, list[float]]:
    """Return photographs a second of each round, after one that does not count. Rounds change their order."""
    rates: dict[str, list[float]] = {"singles": [], "batches": []}
    ways: list[tuple[str, _Send]] = [("singles", sender.send_singles), ("batches", sender.send_batches)]
    for number in range(num_rounds + 1):
        answers = {}
        for name, send in ways if number % 2 else ways[::-1]:
            begun_at = time.perf_counter()
            answers[name] = await send()
            rate = len(answers[name]) / (time.perf_counter() - begun_at)
            if number:
                rates[name].append(round(rate, 1))
        check(answers["singles"], answers["batches"])
    return rates


def check(singles: _Answers, batches: _Answers) -> None:
    """End if an answer of a batch is not that of the single request."""
    for single, one in zip(singles, batches, strict=True):
        if "problem" in one:
            raise SystemExit(one["problem"]["detail"])
        by_label = {score["label"]: score["probability"] for score in single["predictions"]}
        if any(abs(by_label[score["label"]] - score["probability"]) > _TOLERANCE for score in one["predictions"]):
            raise SystemExit(f"{one} is not {single}")


def compare(photographs: Sequence[bytes], workers: int, num_batches: int, num_rounds: int) -> dict[str, Any]:
    """Measure a service with so many workers and so many batches at a time."""
    with ExitStack() as stack:
        store = stack.enter_context(store_of_its_own())
        running = stack.enter_context(replica(store, "--device", "cpu", "--workers", str(workers)))
        rates = run(measure(Sender(running.url, photographs, num_batches), num_rounds))
    ratios = [batch / single for batch, single in zip(rates["batches"], rates["singles"], strict=True)]
    least, most = find_interval(ratios)
    return {
        "workers": workers,
        "batches_at_a_time": num_batches,
        "photographs_a_batch": len(photographs) // num_batches,
        "photographs_per_s": rates,
        "ratio": {"median": round(statistics.median(ratios), 3), "least": round(least, 3), "most": round(most, 3)},
    }


def main() -> None:
    """Measure, print the ratios and write the result."""
    parser = argparse.ArgumentParser(description="Throughput of batches against as many single requests.")
    parser.add_argument("folder", type=Path, help="folder of class folders with JPEGs")
    parser.add_argument("--photographs", type=int, default=128, help="photographs in a round and a batch")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--workers", type=int, nargs="+", default=[1])
    arguments = parser.parse_args()
    photographs = read_small(arguments.folder, arguments.photographs)
    results = []
    for workers in arguments.workers:
        for num_batches in sorted({1, workers}):
            results.append(compare(photographs, workers, num_batches, arguments.rounds))
            print(f"{workers} workers, {num_batches} batches at a time: / single requests {results[-1]['ratio']}")
    written = {"machine": describe_machine(), "connections_of_singles": _CONNECTIONS, "results": results}
    (RESULTS / "batch.json").write_text(json.dumps(written, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
