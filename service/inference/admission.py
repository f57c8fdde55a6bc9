"""Limits on waiting images and bytes. They bound memory and latency under any load, for all workers together."""

import asyncio
import math
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, NoReturn

from service.errors import Draining, QueueFull
from service.inference.usage import Alone, Shared, num_waiting

# A queue longer than what keeps the lanes busy adds nothing but latency. While requests are refused, its length is
# doubled or halved after each of these, until the service is without any image for about so much of the time.
_JUDGED_EVERY_S = 0.5
_TOO_OFTEN_EMPTY, _NEVER_EMPTY = 0.03, 0.01
_OVER_AFTER_S = 2.0

_QUIET_AFTER_S = 0.1  # some images' time: at 30 % of the capacity there is none in most moments, and soon the next

_FULL = "as many as may. Send it again after the seconds in Retry-After."


class Admission:
    """Requests and bytes from arrival to answer, and images from upload to lane. It alone refuses a full queue.

    The event loop's thread alone uses it.

    Args:
        max_queue_size: Most images that may wait in all workers. Overload lowers the number of each for a while.
        max_queue_bytes: Most bytes of bodies in all workers, arriving ones included.
        min_queue_size: Gives the number of images that may always wait here, so that the engine never lacks work.
        shared: Where this process and the other workers count. None means that there are none.
    """

    def __init__(
        self,
        *,
        max_queue_size: int,
        max_queue_bytes: int,
        min_queue_size: Callable[[], int],
        shared: Shared | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clock = clock
        self.max_queue_size = max_queue_size
        self.max_queue_bytes = max_queue_bytes
        self._min_queue_size = min_queue_size
        self.shared = shared or Alone()
        self._own = self.shared.own
        self._own.max_waiting = max_queue_size
        self._full_at = self._judging_since = -math.inf
        self._empty_since, self._empty_s = clock(), 0.0
        self._num_expected = 0
        self._is_closed = self._is_giving_up = False
        self._tasks: list[asyncio.Task[object]] = []  # of the accepted requests
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def num_requests(self) -> int:
        """Accepted requests without an answer."""
        return len(self._tasks)

    @property
    def num_images(self) -> int:
        """Images of accepted requests that have arrived here and have no answer."""
        return self._own.num_images

    @property
    def num_bytes(self) -> int:
        """Bytes of all bodies that were accepted here."""
        return self._own.num_bytes

    @property
    def max_waiting(self) -> int:
        """Images that may wait here at this moment."""
        return self._own.max_waiting

    @property
    def num_waiting(self) -> int:
        """Images that wait here for a thread, or are decoded ahead of their lane."""
        return num_waiting(self._own)

    def is_busy(self) -> bool:
        """Return whether any image is here, or was a moment ago. The next one may come at any moment."""
        return self.num_images > 0 or self._clock() - self._empty_since < _QUIET_AFTER_S

    def expect(self) -> None:
        """Take a place for an image until the event loop's next turn. By then its request counts it.

        Many requests may arrive in one turn. A refusal by the request itself costs ten times as much.

        Raises:
            QueueFull: As many images as may wait already, expected ones included.
        """
        self._check_not_full(self._num_expected)
        self._num_expected += 1
        asyncio.get_running_loop().call_soon(self._no_longer_expect)

    @contextmanager
    def request(self) -> Iterator["Ticket"]:
        """Admit one request, its upload included. A stop waits for what is inside.

        Raises:
            Draining: `close` was called, or `give_up` before the answer.
            QueueFull: As many images as may wait already. The body need not be read.
        """
        if self._is_closed:
            raise Draining("This replica is shutting down. Another replica takes requests. Send it again.")
        self._check_not_full()
        task = asyncio.current_task()
        assert task is not None
        self._tasks.append(task)
        self._idle.clear()
        ticket = Ticket(self)
        try:
            yield ticket
        except asyncio.CancelledError:
            if not self._is_giving_up:
                raise
            task.uncancel()
            raise Draining("This replica shut down before the answer was there. Send the request again.") from None
        finally:
            self._tasks.remove(task)
            self._own.num_bytes -= ticket.num_bytes
            if not self._tasks:
                self._idle.set()

    @contextmanager
    def image(self) -> Iterator[None]:
        """Take a place for one image from its arrival to its row. Raises `QueueFull` where there is none."""
        self._check_not_full()
        self._own.num_images += 1  # before the check of all, or two workers could take the last place
        try:
            if self._num_waiting_everywhere() > self.max_queue_size:
                self._refuse()
            if self._own.num_images == 1:
                self._empty_s += self._clock() - self._empty_since
            yield
        finally:
            self._own.num_images -= 1
            if not self._own.num_images:
                self._empty_since = self._clock()

    def close(self) -> None:
        """Refuse every request from now on. Accepted ones go on."""
        self._is_closed = True

    async def wait_idle(self) -> None:
        """Wait until every accepted request has its answer."""
        await self._idle.wait()

    def give_up(self) -> None:
        """Answer every accepted request with `Draining` now, wherever it is."""
        self._is_giving_up = True
        for task in self._tasks:
            task.cancel()

    def half_of_images(self) -> int:
        """Return how many images one batch may hold here at this moment. It is at least 1."""
        if self._clock() - self._full_at > _OVER_AFTER_S:
            self._own.max_waiting = self.max_queue_size
        return max(1, self.max_waiting // 2)

    def _no_longer_expect(self) -> None:
        self._num_expected -= 1

    def add_bytes(self, num_bytes: int) -> None:
        """Count a piece of a body before it is kept. Raises `QueueFull` where it is too much."""
        self._own.num_bytes += num_bytes
        num_held = self._own.num_bytes + sum(other.num_bytes for other in self.shared.others)
        if num_held > self.max_queue_bytes:
            self._own.num_bytes -= num_bytes
            raise QueueFull(f"{num_held - num_bytes} bytes of images already wait, {_FULL}")

    def remove_bytes(self, num_bytes: int) -> None:
        """Count bytes no more that are let go."""
        self._own.num_bytes -= num_bytes

    def _num_waiting_everywhere(self) -> int:
        return self.num_waiting + sum(map(num_waiting, self.shared.others))

    def _has_room(self, num_expected: int) -> bool:
        is_free_here = self.num_waiting + num_expected < self.max_waiting
        return is_free_here and self._num_waiting_everywhere() + num_expected < self.max_queue_size

    def _check_not_full(self, num_expected: int = 0) -> None:
        if self._has_room(num_expected):
            return
        self._adapt()
        if not self._has_room(num_expected):
            self._refuse()

    def _refuse(self) -> NoReturn:
        raise QueueFull(f"{self._num_waiting_everywhere()} images already wait, {_FULL}")

    def _adapt(self) -> None:
        """Shorten a queue that only adds latency, and lengthen one that runs dry.

        Each arrival that finds no place calls it. Between bursts there is no image, and the queue keeps its length. It
        has its full length again two seconds after the last refusal.

        Source: Nichols and Jacobson, "Controlling Queue Delay" (2012), on standing queues and bursts.
        """
        now = self._clock()
        judged_s, since_full_s = now - self._judging_since, now - self._full_at
        self._full_at = now
        if since_full_s > _OVER_AFTER_S:
            self._own.max_waiting = self.max_queue_size
        elif judged_s < _JUDGED_EVERY_S:
            return
        elif self._empty_s > _TOO_OFTEN_EMPTY * judged_s:
            self._own.max_waiting = min(self.max_queue_size, self.max_waiting * 2)
        elif self._empty_s < _NEVER_EMPTY * judged_s:
            self._own.max_waiting = min(self.max_queue_size, max(self._min_queue_size(), self.max_waiting // 2))
        self._judging_since, self._empty_s = now, 0.0


class Ticket:
    """Place of one admitted request. Its bytes and images count until the request ends."""

    def __init__(self, admission: Admission) -> None:
        self._admission = admission
        self.num_bytes = 0

    def add_bytes(self, num_bytes: int) -> None:
        """Count a piece of the body before it is kept. Raises `QueueFull` where it is too much."""
        self._admission.add_bytes(num_bytes)
        self.num_bytes += num_bytes

    def remove_bytes(self, num_bytes: int) -> None:
        """Count bytes no more that are let go before the request ends."""
        self._admission.remove_bytes(num_bytes)
        self.num_bytes -= num_bytes

    def image(self) -> AbstractContextManager[None]:
        """Take a place for one image of the request. Raises `QueueFull` where there is none."""
        return self._admission.image()

    def share(self) -> "Share":
        """Return the half of the queue that the request may hold as a batch."""
        return Share(self, self._admission)


class Share:
    """Half of the queue's images and bytes, for one batch. The batch waits where a lone image would be refused.

    Other requests may take what is left of the queue. Then the batch is refused, too.
    """

    def __init__(self, ticket: Ticket, admission: Admission) -> None:
        self._ticket = ticket
        self._admission = admission
        self._max_bytes = admission.max_queue_bytes // 2
        self._num_images = 0
        self._is_freed = asyncio.Event()

    async def wait_for_bytes(self, wanted: int) -> int:
        """Wait until the batch may keep more bytes, and return how many of those wanted. They are at least 1.

        An image that is larger than the half has the queue's bytes to itself, so one image always fits.
        """
        while (room := self._max_bytes - self._ticket.num_bytes) <= 0 and self._num_images:
            await self._wait()
        if room <= 0:
            room = self._admission.max_queue_bytes - self._ticket.num_bytes
        return max(1, min(wanted, room))

    async def wait_for_image(self) -> None:
        """Wait until the batch may hold one image more."""
        while self._num_images >= self._admission.half_of_images():
            await self._wait()

    def hold(self, num_bytes: int, until: "asyncio.Task[Any]") -> None:
        """Hold an image and its bytes, which the ticket counts, until a task is done."""
        self._num_images += 1
        until.add_done_callback(lambda _: self._let_go(num_bytes))

    def _let_go(self, num_bytes: int) -> None:
        self._num_images -= 1
        self._ticket.remove_bytes(num_bytes)
        self._is_freed.set()

    async def _wait(self) -> None:
        self._is_freed.clear()
        await self._is_freed.wait()
