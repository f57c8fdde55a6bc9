"""Supervisor of a replica: one address, and several workers behind it.

It accepts the connections and hands each to the worker with the fewest. It loads no model and answers no request.

Source: Node.js, module `cluster`. gunicorn, design of the arbiter.
"""

import asyncio
import os
import signal
import socket
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog

from service import errors
from service.errors import EngineFailed, FlowersError
from service.logs import LogWriter
from service.store.watch import StoreWatch
from service.wire.acceptor import Acceptor
from service.workers.balancer import Balancer
from service.workers.board import FROZEN_AFTER_S, Board
from service.workers.process import Program, WorkerProcess, describe_exit
from service.workers.rollout import Rollout

MAX_DEATHS, DEATHS_WITHIN_S = 5, 60.0
"""So many workers that end within so many seconds end the replica."""

REPLACED_AFTER_S = 15.0
"""Time without a sign of life after which a worker is replaced, in seconds. The watchdog waits as long for a call."""

_START_TIMEOUT_S = 60.0
_END_TIMEOUT_S = 3.0
_TICK_S = 0.1

log: structlog.typing.FilteringBoundLogger = structlog.get_logger()


@dataclass(frozen=True)
class Plan:
    """Settings of a replica. Times are in seconds."""

    max_connections: int
    model_store: Path
    model: str
    reload_interval_s: float
    drain_delay_s: float
    drain_timeout_s: float


class Supervisor:
    """Supervisor of one replica.

    Args:
        program: The workers' program.
        workers: The first workers, forked already.
        listener: A listening socket, which it closes in the end.
        on_listening: Called when connections are accepted.

    Attributes:
        failure: Why the replica ended, or None.
        num_unanswered: Images of accepted requests that had no answer in the end.
    """

    def __init__(
        self,
        plan: Plan,
        board: Board,
        program: Program,
        workers: Sequence[WorkerProcess],
        listener: socket.socket,
        log_writer: LogWriter,
        on_listening: Callable[[], None],
    ) -> None:
        self._plan = plan
        self._board = board
        self._program = program
        self._first = workers
        self._listener = listener
        self._log_writer = log_writer
        self._on_listening = on_listening
        self._acceptor: Acceptor | None = None
        self._workers: dict[int, WorkerProcess] = {}
        self._started_at: dict[int, float] = {}
        self._awake_since = 0.0
        self._deaths: deque[float] = deque(maxlen=MAX_DEATHS)
        self._threads = ThreadPoolExecutor(1, "store")
        self._rollout = Rollout(plan.model_store, plan.model, self._threads, self._begun_workers)
        self._over = asyncio.Event()
        self._draining: asyncio.Task[None] | None = None
        self._ending: set[WorkerProcess] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_forced = False
        self.failure: FlowersError | None = None
        self.num_unanswered = 0

    async def run(self) -> None:
        """Run the replica until `stop` or `fail`."""
        self._board.supervisor.pid = os.getpid()
        self._keep(self._tick_again_and_again())
        asyncio.get_running_loop().add_signal_handler(signal.SIGCHLD, self._reap)
        for worker in self._first:
            self._begin(worker)
        self._reap()  # one may have ended before the handler was there
        self._keep(self._accept())
        self._keep(self._watch_store())
        await self._over.wait()
        (self._acceptor or self._listener).close()
        await self._end_workers()
        for task in tuple(self._tasks):
            task.cancel()
        self._threads.shutdown(wait=False, cancel_futures=True)

    def stop(self, number: signal.Signals) -> None:
        """Drain and end. Ctrl-C skips the delay in which new requests are still taken."""
        if self._draining is not None:
            return
        is_ready = any(worker.slot.can_answer() for worker in self._workers.values())
        delay_s = self._plan.drain_delay_s if number != signal.SIGINT and is_ready else 0.0
        in_flight = sum(worker.slot.num_images for worker in self._workers.values())
        log.info("draining", signal=number.name, delay_s=delay_s, in_flight=in_flight)
        self._draining = asyncio.get_running_loop().create_task(self._drain(delay_s))

    @property
    def is_draining(self) -> bool:
        """Whether `stop` was called."""
        return self._draining is not None

    @property
    def watch(self) -> StoreWatch:
        """The watch of the store."""
        return self._rollout.watch

    def fail(self, error: FlowersError) -> None:
        """End with this reason."""
        self.failure = self.failure or error
        self._over.set()

    def force(self) -> None:
        """End at once, whatever is in flight."""
        self._is_forced = True
        self._over.set()

    def _kill_all(self) -> None:
        for worker in self._workers.values():
            worker.kill()

    def _begin(self, worker: WorkerProcess) -> None:
        self._workers[worker.number] = worker
        self._started_at[worker.number] = time.monotonic()
        worker.begin(self._log_writer, self._on_failure)
        self._keep(self._join(worker))

    async def _join(self, worker: WorkerProcess) -> None:
        await worker.has_said_hello.wait()
        await self._rollout.join(worker)

    def _reap(self) -> None:
        for worker in self._alive():
            if worker.exit_code is not None and worker not in self._ending:
                self._ending.add(worker)
                self._keep(self._replace(worker))

    async def _replace(self, worker: WorkerProcess) -> None:
        """Clear up after a worker that has ended, and start another in its place."""
        pid = worker.slot.pid
        await worker.end()
        self._ending.discard(worker)
        if self._over.is_set():
            return
        log.error(
            "worker ended", worker=worker.number, pid=pid, how=describe_exit(worker.exit_code), reason=worker.reason
        )
        if self._draining is not None:
            return
        self._deaths.append(time.monotonic())
        if len(self._deaths) == MAX_DEATHS and self._deaths[-1] - self._deaths[0] <= DEATHS_WITHIN_S:
            last = worker.reason or f"The last one ended by {describe_exit(worker.exit_code)}."
            self.fail(EngineFailed(f"{MAX_DEATHS} workers ended within {DEATHS_WITHIN_S:.0f} s. {last}"))
            return
        try:
            successor = WorkerProcess(worker.number, self._board)
            successor.spawn(self._program)
        except (OSError, MemoryError) as error:
            self.fail(EngineFailed(f"A worker cannot be started ({error!r}). Free memory, or take fewer --workers."))
            return
        self._begin(successor)

    def _on_failure(self, kind: str, reason: str) -> None:
        self.fail(getattr(errors, kind)(reason))

    def _begun_workers(self) -> list[WorkerProcess]:
        return [worker for worker in self._alive() if worker.has_said_hello.is_set()]

    def _running_workers(self) -> list[WorkerProcess]:
        return [worker for worker in self._workers.values() if worker.is_running]

    async def _tick_again_and_again(self) -> None:
        own = self._board.supervisor
        while True:
            if own.silent_s() >= FROZEN_AFTER_S:  # this process was paused, and its workers were so with it
                self._awake_since = time.monotonic()
            own.cpu_us = int(time.process_time() * 1e6)
            own.num_dropped = self._log_writer.num_dropped
            own.beat()
            for worker in self._workers.values():
                self._check(worker)
            await asyncio.sleep(_TICK_S)

    def _check(self, worker: WorkerProcess) -> None:
        if worker.ended.is_set():
            return
        has_begun = worker.has_said_hello.is_set()
        silent_s = worker.slot.silent_s() if has_begun else time.monotonic() - self._started_at[worker.number]
        silent_s = min(silent_s, time.monotonic() - self._awake_since)
        if silent_s >= (REPLACED_AFTER_S if has_begun else _START_TIMEOUT_S):
            worker.reason = f"It gave no sign of life for {silent_s:.0f} s."
            worker.kill()

    # Connections.

    async def _accept(self) -> None:
        """Accept connections from the moment on in which a worker could answer them."""
        while not self._running_workers():
            await asyncio.sleep(_TICK_S / 5)
        balancer = Balancer(self._alive, self._plan.max_connections)
        self._acceptor = Acceptor(self._listener, balancer.give, balancer.has_room)
        self._acceptor.start()
        self._on_listening()

    # The store.

    async def _watch_store(self) -> None:
        while not all(worker.has_said_hello.is_set() or worker.ended.is_set() for worker in self._first):
            await asyncio.sleep(_TICK_S / 5)
        while True:
            try:
                await self._rollout.look()
                self._board.supervisor.is_started |= self._rollout.is_started
            except Exception:
                log.exception("store scan failed")  # the watch must outlive any surprise
            await asyncio.sleep(self.watch.pause_s(self._plan.reload_interval_s))

    # The end.

    async def _drain(self, delay_s: float) -> None:
        timeout_s = delay_s + self._plan.drain_timeout_s + _END_TIMEOUT_S
        drained = await asyncio.gather(*(self._drain_worker(worker, delay_s, timeout_s) for worker in self._alive()))
        self.num_unanswered = sum(drained)
        self._over.set()

    async def _drain_worker(self, worker: WorkerProcess, delay_s: float, timeout_s: float) -> int:
        with suppress(FlowersError, TimeoutError):
            async with asyncio.timeout(timeout_s):
                answer = await worker.ask("drain", delay_s=delay_s)
                return int(answer.get("num_unanswered", 0))
        return worker.num_lost or worker.slot.num_images

    async def _end_workers(self) -> None:
        alive = self._alive()
        if self.failure is None and not self._is_forced:
            with suppress(TimeoutError):
                async with asyncio.timeout(_END_TIMEOUT_S):
                    await asyncio.gather(*(self._end_worker(worker) for worker in alive))
        self._kill_all()
        with suppress(TimeoutError):
            async with asyncio.timeout(_END_TIMEOUT_S):
                await asyncio.gather(*(worker.ended.wait() for worker in alive))

    async def _end_worker(self, worker: WorkerProcess) -> None:
        with suppress(FlowersError):
            await worker.ask("end")
        await worker.ended.wait()

    def _alive(self) -> list[WorkerProcess]:
        return [worker for worker in self._workers.values() if not worker.ended.is_set()]

    def _keep(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
