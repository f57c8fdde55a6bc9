"""Load in a closed loop of connections, or in an open loop at a rate."""

import asyncio
import itertools
import time
from collections.abc import Callable, Coroutine, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any, TypeVar

from service.bench.connection import TIMEOUT, Connection, Response, Target

_Result = TypeVar("_Result")

_AFTER_FAILURE_S = 0.05  # a dead server refuses at once. Without a pause there would be thousands of errors.


@dataclass(frozen=True)
class Question:
    """A prepared request. `find_error` returns the kind of error of an answer, or an empty string."""

    request: bytes
    find_error: Callable[[Response], str]


@dataclass(frozen=True)
class Load:
    """Form of a load.

    Without `rate`, each of `connections` sends its next request after an answer. With it, `rate` requests begin in each
    second at equal intervals, on at most `connections` connections. Answers in the first `warm_up_s` do not count. With
    `rate`, requests that were due then do not count. After `duration_s` more, no request begins.
    """

    connections: int
    rate: float | None = None
    warm_up_s: float = 1.0
    duration_s: float = 10.0
    timeout_s: float = 30.0


@dataclass
class Observed:
    """Observations after the warm-up.

    Attributes:
        duration_s: Of the measurement, in seconds.
        latencies_s: Of right answers, from the intended start. A stall of the server counts for all that were due.
        num_in_time: Right answers before the end of the measurement.
        errors: Number of each kind.
        late_s: Delays of the generator itself, in an open loop.
        client_cpu_s: Processor time of the generator.
    """

    duration_s: float
    latencies_s: list[float] = field(default_factory=list)
    num_in_time: int = 0
    errors: dict[str, int] = field(default_factory=dict)
    late_s: list[float] = field(default_factory=list)
    client_cpu_s: float = 0.0


def run(program: Coroutine[Any, Any, _Result]) -> _Result:
    """Run `load_target` or `ask_once` on the fastest event loop."""
    try:
        from uvloop import new_event_loop
    except ImportError:  # not on Windows
        new_event_loop = asyncio.new_event_loop  # type: ignore[assignment]
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        return runner.run(program)


async def ask_once(target: Target, request: bytes, timeout_s: float) -> Response:
    """Send one request on a connection of its own, and return its answer."""
    with closing(Connection(target)) as connection:
        return await connection.ask(request, timeout_s)


async def load_target(target: Target, questions: Sequence[Question], load: Load) -> Observed:
    """Put a load on a target with the questions in turn. The last answers are awaited."""
    generator = _Generator(target, questions, load)
    cpu_before = time.process_time()
    await (generator.closed_loop() if load.rate is None else generator.open_loop(load.rate))
    generator.observed.client_cpu_s = time.process_time() - cpu_before
    return generator.observed


class _Generator:
    def __init__(self, target: Target, questions: Sequence[Question], load: Load) -> None:
        self._target = target
        self._load = load
        self._questions = itertools.cycle(questions)
        self._begins_at = time.perf_counter()
        self._counts_from = self._begins_at + load.warm_up_s
        self._ends_at = self._counts_from + load.duration_s
        self.observed = Observed(load.duration_s)

    async def closed_loop(self) -> None:
        await asyncio.gather(*(self._ask_on() for _ in range(self._load.connections)))

    async def _ask_on(self) -> None:
        with closing(Connection(self._target)) as connection:
            while (begun_at := time.perf_counter()) < self._ends_at:
                question = next(self._questions)
                response = await connection.ask(question.request, self._load.timeout_s)
                self._note(begun_at, question, response)
                if response.failure:
                    await asyncio.sleep(_AFTER_FAILURE_S)

    async def open_loop(self, rate: float) -> None:
        idle: asyncio.LifoQueue[Connection] = asyncio.LifoQueue()
        for _ in range(self._load.connections):
            idle.put_nowait(Connection(self._target))
        async with asyncio.TaskGroup() as group:
            for number in itertools.count():
                intended_at = self._begins_at + number / rate
                if intended_at >= self._ends_at:
                    break
                await asyncio.sleep(max(0.0, intended_at - time.perf_counter()))
                if intended_at >= self._counts_from:
                    self.observed.late_s.append(time.perf_counter() - intended_at)
                group.create_task(self._ask_once(intended_at, idle))
        while not idle.empty():
            idle.get_nowait().close()

    async def _ask_once(self, intended_at: float, idle: "asyncio.LifoQueue[Connection]") -> None:
        question = next(self._questions)
        gives_up_at = intended_at + self._load.timeout_s
        try:
            connection = await asyncio.wait_for(idle.get(), gives_up_at - time.perf_counter())
        except TimeoutError:  # all connections were busy
            self._note(intended_at, question, Response(failure=TIMEOUT))
            return
        response = await connection.ask(question.request, gives_up_at - time.perf_counter())
        idle.put_nowait(connection)
        self._note(intended_at, question, response)

    def _note(self, intended_at: float, question: Question, response: Response) -> None:
        now = time.perf_counter()
        if (now if self._load.rate is None else intended_at) < self._counts_from:
            return
        if error := response.failure or question.find_error(response):
            self.observed.errors[error] = self.observed.errors.get(error, 0) + 1
            return
        self.observed.latencies_s.append(now - intended_at)
        self.observed.num_in_time += now <= self._ends_at
