"""Usage of a process: images, bytes and pixels that it holds. The workers of a replica share the limits on them."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from threading import Lock
from typing import Protocol


class Usage(Protocol):
    """Numbers that one process writes, and that the other workers of its replica read."""

    num_images: int  # of accepted requests that have arrived and have no answer
    num_computing: int  # of these, in the lane
    num_bytes: int  # of accepted bodies, arriving ones included
    num_pixels: int  # being decoded ahead of the lane
    max_waiting: int  # images that may wait at this moment
    emptied_ns: int  # when the last image left, on the machine's monotonic clock. 0 means never
    num_explanations: int  # that have arrived and have no answer
    num_explaining: int  # of these, at work


@dataclass
class OwnUsage:
    """Numbers of a process without neighbours."""

    num_images: int = 0
    num_computing: int = 0
    num_bytes: int = 0
    num_pixels: int = 0
    max_waiting: int = 0
    emptied_ns: int = 0
    num_explanations: int = 0
    num_explaining: int = 0


class Shared(Protocol):
    """Shares of all workers of a replica in what it may hold."""

    @property
    def own(self) -> Usage:
        """Numbers of this process."""

    @property
    def others(self) -> Sequence[Usage]:
        """Numbers of the other workers."""

    def turn(self) -> AbstractContextManager[object]:
        """Return the lock of the replica, which is for threads that wait for pixels."""


@dataclass
class Alone:
    """Share of the only process of a replica, which is all."""

    own: OwnUsage = field(default_factory=OwnUsage)
    others: Sequence[OwnUsage] = ()
    _lock: Lock = field(default_factory=Lock)

    def turn(self) -> AbstractContextManager[object]:
        """Return a lock of this process."""
        return self._lock


def num_waiting(usage: Usage) -> int:
    """Return the number of images that wait for a thread, or are decoded ahead of their lane."""
    return max(0, usage.num_images - usage.num_computing)
