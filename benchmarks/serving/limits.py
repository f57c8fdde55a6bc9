"""Limits of the machine without HTTP. They are decoding alone, the engine alone, both in a loop, and the client alone.

A server is judged by its share of `both`. The rest went into HTTP, queues and the event loop.
"""

import asyncio
import itertools
import multiprocessing
import statistics
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.serving.servers import CORES
from service.bench.connection import Response, Target
from service.bench.generator import Load, Question, load_target, run
from service.bench.photographs import as_form
from service.bench.summary import summarise
from service.engines.engine import Engine
from service.engines.open_version import load_engine
from service.engines.wish import EngineWish
from service.imaging.decode import decode_square
from service.imaging.limits import ResizeRule
from service.imaging.pixels import Pixels
from service.store.verify import verify_version

_BATCH_SIZES = (1, 4, 16, 32)
_BATCH_SIZE = 16  # in the loops
_START_TIMEOUT_S = 60.0


def measure_limits(folder: Path, photographs: Sequence[bytes], seconds: float, **choice: str) -> dict[str, Any]:
    """Measure photographs per second in a process of its own. `choice` is an engine, as `EngineWish` takes it."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
        limits = process.submit(_measure, folder, photographs, seconds, choice).result()
    in_processes = measure_in_processes(folder, photographs, seconds, choice)
    limits["processes_per_s"] = in_processes
    if in_processes > limits["both_per_s"]:
        limits |= {"both_per_s": in_processes, "both_how": "a process per core decodes and computes"}
    return limits


def measure_in_processes(folder: Path, photographs: Sequence[bytes], seconds: float, choice: dict[str, str]) -> float:
    """Return photographs per second of a process per core. They begin together, with their engines loaded."""
    context = multiprocessing.get_context("spawn")
    with context.Manager() as manager, ProcessPoolExecutor(CORES, context) as processes:
        together = manager.Barrier(CORES)
        each = partial(_one_of_processes, folder, photographs, seconds, choice, together)
        rates = [processes.submit(each) for _ in range(CORES)]
        return round(sum(rate.result() for rate in rates), 1)


def _one_of_processes(
    folder: Path, photographs: Sequence[bytes], seconds: float, choice: dict[str, str], together: threading.Barrier
) -> float:
    step = _both(_load(folder, choice, threads=1), photographs)
    together.wait(_START_TIMEOUT_S)
    return _rate(step, 1, seconds)


def _load(folder: Path, choice: dict[str, str], threads: int = 0) -> Engine:
    wish = EngineWish(device="cpu", threads=threads, **choice)  # type: ignore[arg-type]
    engine = load_engine(verify_version(folder), wish)
    engine.warm_up(max(_BATCH_SIZES))
    return engine


def _measure(folder: Path, photographs: Sequence[bytes], seconds: float, choice: dict[str, str]) -> dict[str, Any]:
    engine = _load(folder, choice)
    # A core for each of several workers. TensorFlow's threads are the process's, so it computes on all cores at once.
    is_narrow = engine.info.engine == "onnxruntime"
    narrow, num_calls = (_load(folder, choice, threads=1), CORES) if is_narrow else (engine, 1)
    squares = np.stack([_decode(photographs[index % len(photographs)]) for index in range(max(_BATCH_SIZES))])
    both = {
        "a thread per core decodes and computes": _rate(_both(narrow, photographs), CORES, seconds),
        "a thread per core decodes for one that computes": _decoded_ahead(engine, photographs, seconds),
    }
    best = max(both, key=both.__getitem__)
    return {
        "engine": engine.info.engine,
        "precision": engine.info.precision,
        "engine_per_s": {
            str(size): _rate(partial(_compute, narrow, squares[:size]), num_calls, seconds / 2) for size in _BATCH_SIZES
        },
        "decode_per_s": _rate(partial(_decode_all, photographs), CORES, seconds),
        "one_photograph_ms": _one_photograph_ms(engine, photographs, seconds),
        "both_per_s": both[best],
        "both_how": best,
    }


def _rate(step: Callable[[], int], num_threads: int, seconds: float) -> float:
    """Return the count of `step` per second, on that many threads at once."""
    counts = [0] * num_threads
    begun_at = time.perf_counter()

    def work(number: int) -> None:
        while time.perf_counter() < begun_at + seconds:
            counts[number] += step()

    threads = [threading.Thread(target=work, args=(number,)) for number in range(num_threads)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return round(sum(counts) / (time.perf_counter() - begun_at), 1)


def _compute(engine: Engine, squares: Pixels) -> int:
    return len(engine.run(squares).probabilities)


def _decode_all(photographs: Sequence[bytes]) -> int:
    return len([_decode(photograph) for photograph in photographs])


def _both(engine: Engine, photographs: Sequence[bytes]) -> Callable[[], int]:
    numbers = itertools.count()  # shared by the threads: each batch has the next photographs

    def step() -> int:
        batch = [photographs[next(numbers) % len(photographs)] for _ in range(_BATCH_SIZE)]
        return len(engine.run(np.stack([_decode(photograph) for photograph in batch])).probabilities)

    return step


def _decoded_ahead(engine: Engine, photographs: Sequence[bytes], seconds: float) -> float:
    with ThreadPoolExecutor(CORES) as decoders:
        waiting: deque[Future[Pixels]] = deque()
        numbers = itertools.count()

        def step() -> int:
            while len(waiting) < 4 * _BATCH_SIZE:
                waiting.append(decoders.submit(_decode, photographs[next(numbers) % len(photographs)]))
            squares = np.stack([waiting.popleft().result() for _ in range(_BATCH_SIZE)])
            return len(engine.run(squares).probabilities)

        return _rate(step, 1, seconds)


def _one_photograph_ms(engine: Engine, photographs: Sequence[bytes], seconds: float) -> float:
    times: list[float] = []
    ends_at = time.perf_counter() + seconds
    while (begun_at := time.perf_counter()) < ends_at:
        engine.run(_decode(photographs[len(times) % len(photographs)])[None])
        times.append(time.perf_counter() - begun_at)
    return round(statistics.median(times) * 1000, 2)


def _decode(photograph: bytes) -> Pixels:
    return decode_square(photograph, ResizeRule())


def measure_client(photograph: bytes, seconds: float) -> dict[str, Any]:
    """Measure the load generator against a server that does not look. It must not be the bottleneck."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
        port = process.submit(_start_null_server).result()
        target = Target("127.0.0.1", port, "/predict")
        question = Question(target.post(*as_form(photograph)), _find_no_error)
        summary = summarise(load := Load(32, None, 0.2, seconds), run(load_target(target, [question], load)))
    return {"answers_per_s": summary.answers_per_s, "cpu_ms_per_request": summary.client_cpu_ms_per_request}


def _find_no_error(response: Response) -> str:
    return "" if response.status == 200 else "status"


def _start_null_server() -> int:
    """Start a server on a thread of another process, and return its port."""
    answer = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
                await reader.readexactly(int(head.split("content-length:")[1].split()[0]))
                writer.write(answer)
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    loop = asyncio.new_event_loop()
    server = loop.run_until_complete(asyncio.start_server(serve, "127.0.0.1", 0))
    threading.Thread(target=loop.run_forever, daemon=True).start()
    port: int = server.sockets[0].getsockname()[1]
    return port
