"""Limits on explanations, for all workers of a replica together."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

from service.errors import QueueFull
from service.inference.usage import Shared

POLL_S = 0.02  # another process cannot wake this one


class ExplanationLimit:
    """Bounds on explanations at work and waiting. The event loop's thread alone uses it.

    Args:
        max_at_work: Most explanations at work in all workers.
        max_waiting: Most explanations that wait for them in all workers.
        shared: Where this process and the other workers count.
    """

    def __init__(self, *, max_at_work: int, max_waiting: int, shared: Shared) -> None:
        self._max_at_work = max_at_work
        self._max_places = max_at_work + max_waiting
        self._shared = shared
        self._first_come = asyncio.Lock()

    def check_not_full(self) -> None:
        """Refuse an explanation before its body is read. Raises `QueueFull` where there is no place."""
        if self._num_explanations() >= self._max_places:
            raise _full(self._max_places)

    @contextmanager
    def place(self) -> Iterator[None]:
        """Take a place from the arrival to the answer. Raises `QueueFull` where there is none."""
        self._shared.own.num_explanations += 1  # before the check, or two workers could take the last place
        try:
            if self._num_explanations() > self._max_places:
                raise _full(self._max_places)
            yield
        finally:
            self._shared.own.num_explanations -= 1

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Wait until the explanation may work, and let it. Those of one worker come in order."""
        async with self._first_come:
            while not self._try_begin():
                await asyncio.sleep(POLL_S)
        try:
            yield
        finally:
            self._shared.own.num_explaining -= 1

    def _try_begin(self) -> bool:
        own = self._shared.own
        own.num_explaining += 1  # before the check, as above
        if own.num_explaining + sum(other.num_explaining for other in self._shared.others) <= self._max_at_work:
            return True
        own.num_explaining -= 1
        return False

    def _num_explanations(self) -> int:
        others = self._shared.others
        return self._shared.own.num_explanations + sum(other.num_explanations for other in others)


def _full(max_places: int) -> QueueFull:
    return QueueFull(
        f"{max_places} explanations are already here, as many as may. Send it again after the seconds in Retry-After."
    )
