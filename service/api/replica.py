"""Replica as one of its workers sees it. One process alone needs none of this."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from service.inference.health import Health
from service.inference.usage import Shared


class Replica(Shared, Protocol):
    """Facts about all workers of a replica. No call waits for another process."""

    @property
    def folder(self) -> Path:
        """Folder that the workers share while the replica runs."""

    @property
    def num_workers(self) -> int:
        """Number of workers that there should be."""

    def num_ready(self) -> int:
        """Return the number of workers that can answer."""

    def is_started(self) -> bool:
        """Return whether a model was loaded and warm once, in any worker."""

    def find_trouble(self) -> str:
        """Return why the replica is not ready, in a sentence. It is empty if it is.

        A replica is ready if a worker can answer and none is wedged for long.
        """

    def num_dropped_lines(self) -> int:
        """Return the number of log lines that were dropped, by dead workers, too."""

    def process_ids(self) -> Sequence[int]:
        """List the processes of the replica: the supervisor and its workers."""

    def cpu_s(self) -> float:
        """Return the processor time of all workers and their supervisor in seconds, dead ones included."""


@dataclass(frozen=True)
class Readiness:
    """Readiness as the probes and the metrics say it: that of the replica, and not of one worker."""

    health: Health
    replica: Replica | None = None

    def is_started(self) -> bool:
        """Return whether a model was loaded and warm once."""
        return self.health.is_started or (self.replica is not None and self.replica.is_started())

    def reasons(self) -> tuple[str, ...]:
        """List why the replica takes no work, some sentences each. It is empty when it does."""
        if self.replica is None or self.health.is_draining:
            return self.health.reasons
        trouble = self.replica.find_trouble()
        return self.health.reasons or (trouble,) if trouble else ()

    def is_ready(self) -> bool:
        """Return whether the replica takes work."""
        return not self.reasons()

    def num_workers(self) -> int:
        """Return the number of workers that there should be."""
        return 1 if self.replica is None else self.replica.num_workers

    def num_ready(self) -> int:
        """Return the number of workers that can answer."""
        return int(not self.health.is_blocked) if self.replica is None else self.replica.num_ready()
