"""Who may wait, and how long: the bounds that keep memory and latency bounded under any load."""

import asyncio
import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from service.errors import Draining, QueueFull

# A queue longer than what keeps the lanes busy adds nothing but latency: while requests are refused, its length is
# doubled or halved after each of these, until the service is without any image for about so much of the time.
_JUDGED_EVERY_S = 0.5
_TOO_OFTEN_EMPTY, _NEVER_EMPTY = 0.03, 0.01
_OVER_AFTER_S = 2.0

_QUIET_AFTER_S = 0.1  # some images' time: at 30 % of the capacity there is none in most moments, and soon the next

_FULL = "as many as may: send it again after the seconds in Retry-After."


class Admission:
    """Counts requests and their bytes from arrival to answer, and images from the end of their upload to their lane.

    On the event loop's thread only: no locks.

    Args:
        max_queue_size: most images that may wait; fewer while the overload lasts.
        max_queue_bytes: most bytes of bodies, those included that are still arriving.
        num_computing: how many images are in lanes at this moment; they do not wait any more.
        min_queue_size: how many must be able to wait, at the least, so that the engine never lacks work.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        *,
        max_queue_size: int,
        max_queue_bytes: int,
        num_computing: Callable[[], int],
        min_queue_size: Callable[[], int],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clock = clock
        self._max_queue_size = max_queue_size
        self._max_queue_bytes = max_queue_bytes
        self._min_queue_size = min_queue_size
        self.room = max_queue_size
        """Images that may wait at this moment."""
        self._full_at = self._judging_since = -math.inf
        self._empty_since, self._empty_s = clock(), 0.0
        self._num_computing = num_computing
        self.num_requests = 0
        """Accepted requests that have no answer yet."""
        self.num_images = 0
        """Images of theirs that have arrived."""
        self.num_bytes = 0
        """Bytes of their bodies."""
        self._num_expected = 0
        self._is_closed = self._is_giving_up = False
        self._tasks: set[asyncio.Task[object]] = set()  # of the accepted requests
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def num_waiting(self) -> int:
        """Images that wait for a thread, or are being decoded ahead of their lane."""
        return max(0, self.num_images - self._num_computing())

    def is_busy(self) -> bool:
        """Whether an image is here, or was a moment ago, whoever's: the next may come at any moment."""
        return self.num_images > 0 or self._clock() - self._empty_since < _QUIET_AFTER_S

    def check_room(self) -> None:
        """Whether one more image may wait at this moment, those that are expected counted. Raises `QueueFull`."""
        self._check_room(self._num_expected)

    def expect(self) -> None:
        """Count an image until the event loop's next turn, by when its request has come to count it itself.

        Many may arrive in one turn, and a request that finds no room only when it is there has cost ten times as much.
        """
        self._num_expected += 1
        asyncio.get_running_loop().call_soon(self._no_longer_expect)

    @contextmanager
    def request(self) -> Iterator[Callable[[int], None]]:
        """Around the whole of one request, its upload included: a stop waits for what is inside.

        Gives what is to be told of each piece of the body (bytes), and raises `QueueFull` when that is too much.

        Raises:
            Draining: `close` was called; or `give_up`, before the answer was there.
            QueueFull: as many images as may wait already; its body need not even be read.
        """
        if self._is_closed:
            raise Draining("This replica is shutting down: send the request again, another replica takes it.")
        self._check_room()
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.num_requests += 1
        self._idle.clear()
        num_own_bytes = 0

        def hold(num_bytes: int) -> None:
            nonlocal num_own_bytes
            if self.num_bytes + num_bytes > self._max_queue_bytes:
                raise QueueFull(f"{self.num_bytes} bytes of images already wait, {_FULL}")
            num_own_bytes += num_bytes
            self.num_bytes += num_bytes

        try:
            yield hold
        except asyncio.CancelledError:
            if not self._is_giving_up:
                raise
            task.uncancel()
            raise Draining("This replica shut down before the answer was there: send the request again.") from None
        finally:
            self._tasks.discard(task)
            self.num_bytes -= num_own_bytes
            self.num_requests -= 1
            if not self.num_requests:
                self._idle.set()

    @contextmanager
    def image(self) -> Iterator[None]:
        """Around decode, queue and lane of one image, its bytes being here. Raises `QueueFull`."""
        self._check_room()
        if not self.num_images:
            self._empty_s += self._clock() - self._empty_since
        self.num_images += 1
        try:
            yield
        finally:
            self.num_images -= 1
            if not self.num_images:
                self._empty_since = self._clock()

    def close(self) -> None:
        """Refuse every request from now on; what was accepted goes on."""
        self._is_closed = True

    async def wait_idle(self) -> None:
        """Until every accepted request has its answer."""
        await self._idle.wait()

    def give_up(self) -> None:
        """Answer every accepted request with `Draining` now, wherever it is."""
        self._is_giving_up = True
        for task in self._tasks:
            task.cancel()

    def _no_longer_expect(self) -> None:
        self._num_expected -= 1

    def _check_room(self, num_expected: int = 0) -> None:
        if self.num_waiting + num_expected < self.room:
            return
        self._adapt_room()
        if self.num_waiting + num_expected >= self.room:
            raise QueueFull(f"{self.num_waiting} images already wait, {_FULL}")

    def _adapt_room(self) -> None:
        """On each arrival that finds none: shorten a queue that only adds latency, lengthen one that runs dry.

        Between bursts there is no image at all, and all of the room stays for the next one. After two seconds in which
        everybody has found room it is all there again, too.

        Source: Nichols and Jacobson, "Controlling Queue Delay" (2012), on standing queues and bursts.
        """
        now = self._clock()
        judged_s, since_full_s = now - self._judging_since, now - self._full_at
        self._full_at = now
        if since_full_s > _OVER_AFTER_S:
            self.room = self._max_queue_size
        elif judged_s < _JUDGED_EVERY_S:
            return
        elif self._empty_s > _TOO_OFTEN_EMPTY * judged_s:
            self.room = min(self._max_queue_size, self.room * 2)
        elif self._empty_s < _NEVER_EMPTY * judged_s:
            self.room = min(self._max_queue_size, max(self._min_queue_size(), self.room // 2))
        self._judging_since, self._empty_s = now, 0.0


class PixelBudget:
    """Bounds the pixels that the threads which decode ahead are at, together: up to 17 bytes for each.

    Args:
        max_pixels: of all pictures that are decoded at the same time; a larger one is decoded alone.
    """

    def __init__(self, max_pixels: int) -> None:
        self._max_pixels = max_pixels
        self._num_pixels = 0
        self._turn = threading.Lock()  # first come, first served: else small pictures would pass a large one for ever
        self._freed = threading.Condition()

    @contextmanager
    def hold(self, num_pixels: int) -> Iterator[None]:
        """Around the decoding of one picture, in its thread, which waits here while there is no room."""
        with self._turn, self._freed:
            self._freed.wait_for(lambda: not self._num_pixels or self._num_pixels + num_pixels <= self._max_pixels)
            self._num_pixels += num_pixels
        try:
            yield
        finally:
            with self._freed:
                self._num_pixels -= num_pixels
                self._freed.notify()
