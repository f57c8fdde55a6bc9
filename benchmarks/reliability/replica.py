"""`flowers serve` as a process, and the result of an experiment on it."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from service.bench.connection import Response, Target, find_error, parse_target
from service.bench.generator import Load, Question, load_target, run
from service.bench.photographs import draw_flower
from service.bench.summary import Summary, summarise

SHIPPED = Path(__file__).parents[2] / "model_store"
MODEL = "flowers"


@dataclass(frozen=True)
class Promise:
    """Bound, and the figure measured against it."""

    text: str
    measured: float
    bound: str
    is_kept: bool


@dataclass
class Result:
    """Result of an experiment."""

    promises: list[Promise] = field(default_factory=list)
    figures: dict[str, Any] = field(default_factory=dict)

    def at_most(self, bound: float, text: str, measured: float) -> None:
        """Promise that `measured` is not above `bound`."""
        self.promises.append(Promise(text, round(measured, 3), f"at most {bound:g}", measured <= bound))

    def at_least(self, bound: float, text: str, measured: float) -> None:
        """Promise that `measured` is not below `bound`."""
        self.promises.append(Promise(text, round(measured, 3), f"at least {bound:g}", measured >= bound))


class Replica:
    """Service that runs on `store`. `start` starts it anew on the same port."""

    def __init__(self, store: Path, *flags: str, cores: Collection[int] = ()) -> None:
        self._store = store
        self._cores = cores
        self._flags = flags
        self._log = store.parent / f"{id(self)}.log"
        self.port = 0
        self.start()

    def start(self) -> None:
        """Start it and wait until it is ready."""
        before = len(self.events())
        command = [sys.executable, "-m", "service", "serve", "--log-format", "json", "--no-access-log", *self._flags]
        place = ["--port", str(self.port), "--model-store", str(self._store)]
        own_cores = os.sched_getaffinity(0)
        os.sched_setaffinity(0, self._cores or own_cores)  # which it takes over from this thread
        with self._log.open("ab") as log:
            self.process = subprocess.Popen([*command, *place], stderr=log)
        os.sched_setaffinity(0, own_cores)
        wait_for(lambda: any(event["event"] == "service listening" for event in self.events()[before:]), "it listens")
        self.port = int(self.events("service listening")[-1]["url"].rsplit(":", 1)[1])
        wait_for(self.is_ready, "it is ready")

    @property
    def url(self) -> str:
        """Address that it listens on."""
        return f"http://127.0.0.1:{self.port}"

    def is_ready(self) -> bool:
        """Return whether /readyz answers 200."""
        return status_of(f"{self.url}/readyz") == 200

    def events(self, name: str | None = None) -> list[dict[str, Any]]:
        """Return its log events. Lines of C libraries are passed over."""
        if not self._log.exists():
            return []
        lines = self._log.read_text(encoding="utf-8", errors="replace").splitlines()
        events = [json.loads(line) for line in lines if line.startswith("{") and line.endswith("}")]
        return [event for event in events if name in (None, event["event"])]

    def live_version(self) -> int:
        """Return the version that answers now."""
        with urllib.request.urlopen(f"{self.url}/models/{MODEL}", timeout=10) as answer:
            return int(json.load(answer)["live"]["version"])

    def metric(self, name: str) -> float:
        """Return the sum over the series of one metric."""
        with urllib.request.urlopen(f"{self.url}/metrics", timeout=10) as answer:
            lines = answer.read().decode().splitlines()
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.split("{")[0].split(" ")[0] == name)

    def resident_mb(self) -> float:
        """Return the resident memory, in 10^6 bytes."""
        return resident_mb(self.process.pid)

    def num_threads(self) -> int:
        """Return the number of threads of all processes."""
        return self._count("task")

    def num_files(self) -> int:
        """Return the number of open file descriptors of all processes."""
        return self._count("fd")

    def freeze(self, number: signal.Signals) -> None:
        """Send SIGSTOP or SIGCONT to the supervisor and its workers."""
        for pid in with_children(self.process.pid):
            os.kill(pid, number)

    def _count(self, of: str) -> int:
        return sum(len(list(Path(f"/proc/{pid}/{of}").iterdir())) for pid in with_children(self.process.pid))

    def stop(self) -> int:
        """Send SIGTERM, and return the exit code."""
        self.process.terminate()
        return self.process.wait(timeout=60)


@contextmanager
def store_of_its_own() -> Iterator[Path]:
    """Copy the shipped store into a scratch folder."""
    with TemporaryDirectory(prefix="flowers-reliability-") as scratch:
        store = Path(scratch) / "model_store"
        newest = max((path for path in (SHIPPED / MODEL).iterdir() if path.name.isdigit()), key=lambda p: int(p.name))
        shutil.copytree(newest, store / MODEL / "1")
        yield store


@contextmanager
def replica(store: Path, *flags: str, cores: Collection[int] = ()) -> Iterator[Replica]:
    """Run a replica on these cores, or on all, and kill it at the end."""
    running = Replica(store, *flags, cores=cores)
    try:
        yield running
    finally:
        running.process.kill()
        running.process.wait()


def publish_copy(store: Path, version: int, *, is_spoilt: bool = False) -> None:
    """Publish the first version under another number. A spoilt one has a changed byte in its network."""
    beside = store / MODEL / f".publishing-{version}"
    oldest = min((path for path in (store / MODEL).iterdir() if path.name.isdigit()), key=lambda path: int(path.name))
    shutil.copytree(oldest, beside)
    if is_spoilt:
        file = beside / "saved_model.pb"
        file.write_bytes(file.read_bytes()[:-1] + b"\0")
    beside.rename(store / MODEL / str(version))


def status_of(url: str) -> int:
    """Return the status of a GET, or 0 without an answer within 5 s."""
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return 0


def resident_mb(pid: int) -> float:
    """Return the resident memory of a process and its children, in 10^6 bytes. A shared page counts once."""
    total = 0
    for one in with_children(pid):
        with suppress(FileNotFoundError, ProcessLookupError, IndexError):  # one may end meanwhile
            lines = Path(f"/proc/{one}/smaps_rollup").read_text(encoding="utf-8")
            total += int(lines.split("Pss:")[1].split()[0]) * 1024
    return total / 1e6


def with_children(pid: int) -> list[int]:
    """List a process, its children and theirs."""
    found = [pid]
    for thread in Path(f"/proc/{pid}/task").iterdir():
        with suppress(FileNotFoundError, ProcessLookupError):
            for child in (thread / "children").read_text().split():
                found += with_children(int(child))
    return found


@contextmanager
def weighed(pid: int) -> Iterator[list[float]]:
    """Collect `resident_mb` ten times a second."""
    weights = [resident_mb(pid)]
    is_over = threading.Event()

    def weigh() -> None:
        while not is_over.wait(0.1):
            weights.append(resident_mb(pid))

    thread = threading.Thread(target=weigh)
    thread.start()
    try:
        yield weights
    finally:
        is_over.set()
        thread.join()


@contextmanager
def cores_apart() -> Iterator[frozenset[int]]:
    """Give one half of the cores to a service, and the other to its clients.

    On the same cores the generator takes a quarter of a core from the service at five times the load.
    """
    every = sorted(os.sched_getaffinity(0))
    half = len(every) // 2
    os.sched_setaffinity(0, every[half:])
    try:
        yield frozenset(every[:half] or every)
    finally:
        os.sched_setaffinity(0, every)


def wait_for(condition: Callable[[], bool], what: str, timeout_s: float = 120) -> float:
    """Return the seconds until `condition` holds."""
    begun = time.monotonic()
    while not condition():
        if time.monotonic() - begun > timeout_s:
            raise SystemExit(f"gave up after {timeout_s:g} s of waiting until {what}")
        time.sleep(0.02)
    return time.monotonic() - begun


def ask(url: str, load: Load, photograph: bytes | None = None) -> Summary:
    """Load a service with one photograph. An answer that differs from the first is counted as wrong."""
    target = parse_target(url, "/predict")
    return summarise(load, run(load_target(target, [question(target, photograph or draw_flower())], load)))


def ask_disturbed(url: str, rate: float, duration_s: float, disturb: Callable[[], None]) -> Summary:
    """Load a service at a rate. After two seconds `disturb` runs beside it."""
    disturbing = threading.Thread(target=disturb)
    threading.Timer(2, disturbing.start).start()
    summary = ask(url, Load(connections=256, rate=rate, duration_s=duration_s))
    disturbing.join()
    return summary


def question(target: Target, photograph: bytes) -> Question:
    """Return a photograph and the check that its answers never change."""
    first: dict[str, float] = {}

    def check(response: Response) -> str:
        if error := find_error(response):
            return error
        scores = {score["label"]: score["probability"] for score in json.loads(response.body)["predictions"]}
        expected = first or scores
        first.update(expected)
        return "" if all(abs(scores[label] - expected[label]) < 0.001 for label in expected) else "wrong answer"

    return Question(target.post(photograph, "image/jpeg"), check)


def p99_ms(summary: Summary) -> float:
    """Return the p99 of the right answers, or infinity without one."""
    return summary.latency_ms["p99"] if summary.latency_ms else float("inf")


def capacity(url: str, seconds: float) -> float:
    """Return answers per second of a closed loop that keeps the service busy."""
    return ask(url, Load(connections=16, warm_up_s=2, duration_s=seconds)).answers_per_s
