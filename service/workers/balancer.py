"""Balancer of connections: each goes to the ready worker with the fewest."""

import socket
from collections.abc import Callable, Sequence

import structlog

from service.workers.process import WorkerProcess

log: structlog.typing.FilteringBoundLogger = structlog.get_logger()


class Balancer:
    """Giver of accepted connections to workers.

    Args:
        list_workers: Gives the workers whose processes have not ended.
        max_connections: Limit of open connections of all workers.
    """

    def __init__(self, list_workers: Callable[[], Sequence[WorkerProcess]], max_connections: int) -> None:
        self._list_workers = list_workers
        self._max_connections = max_connections
        self._given_at: dict[int, int] = {}  # worker -> turn in which it got its last connection
        self._num_given = 0

    def has_room(self) -> bool:
        """Return whether one more connection may be open, and a worker can take it."""
        num_open = sum(worker.num_open for worker in self._list_workers())
        return num_open < self._max_connections and bool(self._takers())

    def give(self, connection: socket.socket) -> None:
        """Hand a connection over. Without a ready worker, any that runs gets it, and answers what it can."""
        takers = self._takers()
        ready = [worker for worker in takers if worker.slot.can_answer()]
        in_turn = sorted(ready or takers, key=lambda worker: (worker.num_open, self._given_at.get(worker.number, 0)))
        with connection:  # our copy is closed
            for worker in in_turn:
                if worker.give(connection):
                    self._num_given += 1
                    self._given_at[worker.number] = self._num_given
                    return
        log.warning("connection dropped", reason="No worker takes it.")

    def _takers(self) -> list[WorkerProcess]:
        return [worker for worker in self._list_workers() if worker.is_running and worker.has_room]
