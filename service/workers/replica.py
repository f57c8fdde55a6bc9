"""Replica as one of its workers sees it: the board, read."""

import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from service.workers.board import FROZEN_AFTER_S, Board, Slot

WEDGED_FOR_LONG_S = 10.0
"""Time after which one worker that cannot answer makes the replica not ready, in seconds."""


class WorkerReplica:
    """The replica of a worker.

    Args:
        board: The numbers of all workers.
        number: This worker's, from 0.
    """

    def __init__(self, board: Board, number: int) -> None:
        self._board = board
        self.own = board.workers[number]
        self.others: Sequence[Slot] = [slot for slot in board.workers if slot is not self.own]

    @property
    def folder(self) -> Path:
        """Folder that the workers share while the replica runs."""
        return self._board.folder

    @property
    def num_workers(self) -> int:
        """Number of workers that there should be."""
        return len(self._board.workers)

    def turn(self) -> AbstractContextManager[object]:
        """Return the lock of the replica."""
        return self._board.turn()

    def num_ready(self) -> int:
        """Return the number of workers that can answer."""
        return sum(slot.can_answer() for slot in self._board.workers)

    def is_started(self) -> bool:
        """Return whether a model was loaded and warm once, in any worker."""
        return bool(self._board.supervisor.is_started)

    def find_trouble(self) -> str:
        """Return why the replica is not ready, in a sentence. It is empty if it is."""
        if not self.num_ready():
            return "No worker can answer."
        longest_s = max(_unanswering_s(slot) for slot in self._board.workers)
        return f"A worker has not answered for {longest_s:.0f} s." if longest_s >= WEDGED_FOR_LONG_S else ""

    def num_dropped_lines(self) -> int:
        """Return the number of log lines that were dropped, by dead workers, too."""
        return sum(slot.num_dropped for slot in self._slots())

    def process_ids(self) -> Sequence[int]:
        """List the processes of the replica: the supervisor and its workers."""
        return [slot.pid for slot in self._slots() if slot.pid]

    def cpu_s(self) -> float:
        """Return the processor time of all workers and their supervisor in seconds, dead ones included."""
        return sum(slot.cpu_us for slot in self._slots()) / 1e6

    def _slots(self) -> Sequence[Slot]:
        return [self._board.supervisor, *self._board.workers]


def _unanswering_s(slot: Slot) -> float:
    """Return the time for which a worker is frozen, or was ready and is so no more, in seconds."""
    if not slot.pid:
        return 0.0
    silent_s = slot.silent_s()
    if silent_s >= FROZEN_AFTER_S:
        return silent_s
    return (time.monotonic_ns() - slot.unready_since_ns) / 1e9 if slot.unready_since_ns else 0.0
