"""Who may wait, and how long: the bounds that keep memory and latency bounded under any load."""

import asyncio
import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from service.errors import Draining, QueueFull
from service.resources import count_cores

# A full queue in which every image waits long only adds latency: it is cut to what is answered in this time.
_LONG_WAIT_S = 0.025
_STANDS_AFTER_S = 2.0  # a replica that starts on the same cores takes them for less
_NO_WAIT_S = 0.01
_GROWS_EVERY_S = 0.5
# Images per core: enough to keep decoders and lanes busy. On two cores with half as many, and 12 ms, the median at five
# times the load falls by a quarter, but the 99th percentile does not, and 6 % fewer are answered.
_SHORTEST_QUEUE = 8

_FULL = "as many as may: send it again after the seconds in Retry-After."


class Admission:
    """Counts requests and their bytes from arrival to answer, and images from the end of their upload to their lane.

    On the event loop's thread only: no locks.

    Args:
        max_queue_size: most images that may wait; fewer while the overload lasts.
        max_queue_bytes: most bytes of bodies, those included that are still arriving.
        num_computing: how many images are in lanes at this moment; they do not wait any more.
        num_cores: that compute; 0: all that `count_cores` counts.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        *,
        max_queue_size: int,
        max_queue_bytes: int,
        num_computing: Callable[[], int],
        num_cores: int = 0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clock = clock
        self._max_queue_size = max_queue_size
        self._max_queue_bytes = max_queue_bytes
        self._shortest_queue = _SHORTEST_QUEUE * (num_cores or count_cores())
        self.room = max_queue_size
        """Images that may wait at this moment."""
        self._shortest_wait_s = math.inf
        self._judging_since: float | None = None
        self._refused_at = -math.inf
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
        self.num_images += 1
        try:
            yield
        finally:
            self.num_images -= 1

    def note_wait(self, wait_s: float) -> None:
        """Told how long an answered image had waited, in seconds.

        Where images are refused, and of those answered even the one that waited least in two seconds waited long, a
        standing queue has formed, which a burst does not do: so many images may wait from now on as are answered in
        `_LONG_WAIT_S`. All of the room is back two seconds after the last refusal, and earlier when one hardly waits.

        Source: Nichols and Jacobson, "Controlling Queue Delay" (2012): the minimum tells a standing queue from a burst.
        """
        now = self._clock()
        if self._judging_since is None:
            self._judging_since, self._shortest_wait_s = now, math.inf
        self._shortest_wait_s = min(self._shortest_wait_s, wait_s)
        is_standing = self._shortest_wait_s > _NO_WAIT_S
        if now - self._judging_since < (_STANDS_AFTER_S if is_standing else _GROWS_EVERY_S):
            return
        if not is_standing:
            self.room = min(self._max_queue_size, self.room * 2)
        elif self._shortest_wait_s > _LONG_WAIT_S and self._refused_at >= self._judging_since:
            fitting = max(self._shortest_queue, int(self.room * _LONG_WAIT_S / self._shortest_wait_s))
            self.room = min(self._max_queue_size, fitting)
        self._judging_since = None

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
        now = self._clock()
        if now - self._refused_at > _STANDS_AFTER_S:
            self.room = self._max_queue_size
        if self.num_waiting + num_expected >= self.room:
            self._refused_at = now
            raise QueueFull(f"{self.num_waiting} images already wait, {_FULL}")


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
