"""Rollout of a version: all workers of a replica take it, or none does."""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import replace
from pathlib import Path
from typing import Any

import structlog

from service.errors import WorkerEnded
from service.store.verify import verify_version
from service.store.versions import StoredVersion
from service.store.watch import Refusal, StoreWatch, Taken
from service.workers.process import WorkerProcess

SWITCH_TIMEOUT_S = 1.0
"""Time for all workers to switch, in seconds. A worker that has not is replaced."""

_DEADLY = Refusal("A worker ended while it loaded this version.", is_passing=True)

log: structlog.typing.FilteringBoundLogger = structlog.get_logger()


class Rollout:
    """Watch of the store for all workers.

    Each version is verified here. Each worker verifies again what it loads, and warms up. They do so one after another,
    or at the same time while no version is in use. When all have, all switch.

    Args:
        store, model: The folder to watch is `<store>/<model>`.
        threads: Where the store is read.
        list_workers: Gives the workers that have said hello. Frozen ones are among them.

    Attributes:
        watch: Watch of the store.
    """

    def __init__(
        self, store: Path, model: str, threads: Executor, list_workers: Callable[[], Sequence[WorkerProcess]]
    ) -> None:
        self._threads = threads
        self._list_workers = list_workers
        self.watch = StoreWatch(store, model, self._take, self._report_waiting, self._on_thread)
        self._current: StoredVersion | None = None
        self._waiting = "The model is being loaded."
        self._noted: dict[str, Any] = {}
        self._deadly: StoredVersion | None = None  # the last one whose load a worker did not survive
        self._lock = asyncio.Lock()
        self._without: dict[WorkerProcess, str] = {}  # why they could not load the version in use

    @property
    def is_started(self) -> bool:
        """Whether a version was taken once."""
        return self._current is not None

    async def look(self) -> None:
        """Search the store once, and roll out the version that is wanted."""
        for worker in tuple(self._without):
            await self.join(worker)
        await self.watch.look()
        await self._note(self._running())

    async def join(self, worker: WorkerProcess) -> None:
        """Give a new worker the version in use, and what is known of the store."""
        async with self._lock:
            facts = self._facts()
            try:
                if self._current is not None:
                    outcome = await _open(worker, self._current)
                    if isinstance(outcome, Refusal):
                        if self._without.get(worker) != outcome.reason:
                            log.error("worker without model", worker=worker.number, reason=outcome.reason)
                        self._without[worker] = outcome.reason
                        version = self._current.version
                        facts["waiting"] = f"Version {version} cannot be loaded again. See the service's log."
                    else:
                        self._without.pop(worker, None)
                        await worker.ask("switch")
                await worker.ask("note", **facts)
            except WorkerEnded:
                self._without.pop(worker, None)  # its successor will join

    async def _take(self, stored: StoredVersion) -> Taken | Refusal:
        try:
            await self._on_thread(verify_version, stored.folder)
        except Exception as error:
            return Refusal.of(error)
        async with self._lock:
            workers = self._running()
            frozen = [worker for worker in self._list_workers() if worker not in workers]
            outcome = await self._open_in_all(workers, stored)
            if isinstance(outcome, Refusal):
                await _tell_all(workers, "forget")
                return self._judge_deadly(stored) if outcome is _DEADLY else outcome
            self._current = stored
            self._without.clear()
            for worker in frozen:  # it would go on with the old version when it runs again
                worker.reason = f"It was frozen while version {stored.version} was taken into use."
                worker.kill()
            await _switch_all(workers)
            return outcome

    def _judge_deadly(self, stored: StoredVersion) -> Refusal:
        """Return the refusal of a version that may have ended a worker. The second time the version is to blame.

        Otherwise its tries would end the replica, which has a good version.
        """
        is_again, self._deadly = self._deadly == stored, stored
        return replace(_DEADLY, is_passing=not is_again)

    async def _open_in_all(self, workers: Sequence[WorkerProcess], stored: StoredVersion) -> Taken | Refusal:
        outcomes: list[Taken | Refusal] = []
        if self._current is None:
            outcomes = await asyncio.gather(*(_try_to_open(worker, stored) for worker in workers))
        else:
            for worker in workers:
                outcomes.append(await _try_to_open(worker, stored))
                if isinstance(outcomes[-1], Refusal):
                    break
        refusals = [outcome for outcome in outcomes if isinstance(outcome, Refusal)]
        if not outcomes:
            return Refusal("No worker runs that could load it.", is_passing=True)
        return refusals[0] if refusals else outcomes[0]

    def _running(self) -> list[WorkerProcess]:
        return [worker for worker in self._list_workers() if worker.is_running]

    def _report_waiting(self, reason: str) -> None:
        self._waiting = reason

    def _facts(self) -> dict[str, Any]:
        watch = self.watch
        return {
            "refused": watch.refused,
            "num_taken": watch.num_taken,
            "num_refused": watch.num_refused,
            "waiting": "" if self._current is not None else self._waiting,
        }

    async def _note(self, workers: Sequence[WorkerProcess]) -> None:
        facts = self._facts()
        if facts != self._noted:
            is_told = await _tell_all(workers, "note", **facts)
            self._noted = {**facts, "refused": dict(facts["refused"])} if is_told else {}

    async def _on_thread(self, function: Callable[..., Any], *arguments: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._threads, function, *arguments)


async def _open(worker: WorkerProcess, stored: StoredVersion) -> Taken | Refusal:
    answer = await worker.ask(
        "open", model=stored.model, version=stored.version, folder=str(stored.folder), pinned=stored.pinned
    )
    if "taken" in answer:
        return Taken(**answer["taken"])
    return Refusal(**answer["refusal"]) if "refusal" in answer else Refusal(answer["error"], is_ours=False)


async def _try_to_open(worker: WorkerProcess, stored: StoredVersion) -> Taken | Refusal:
    """Open as `_open` does. A worker that ends has refused, and the others go on to the end of their load."""
    try:
        return await _open(worker, stored)
    except WorkerEnded:
        return _DEADLY


async def _tell_all(workers: Sequence[WorkerProcess], verb: str, **fields: Any) -> bool:
    """Ask all at the same time. Return False if one has not answered in time."""

    async def tell(worker: WorkerProcess) -> bool:
        try:
            async with asyncio.timeout(SWITCH_TIMEOUT_S):
                await worker.ask(verb, **fields)
        except TimeoutError:
            return False
        except WorkerEnded:
            pass  # its successor joins
        return True

    return all(await asyncio.gather(*map(tell, workers)))


async def _switch_all(workers: Sequence[WorkerProcess]) -> None:
    """Let all switch at the same time. A worker that has not in time would go on with the version before, and ends."""

    async def switch(worker: WorkerProcess) -> None:
        if not await _tell_all([worker], "switch"):
            worker.reason = f"It did not switch within {SWITCH_TIMEOUT_S:.0f} s."
            worker.kill()

    await asyncio.gather(*map(switch, workers))
