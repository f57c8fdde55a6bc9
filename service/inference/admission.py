"""Who may wait, and how long: the bounds that keep memory and latency bounded under any load.

Everything here runs on the event loop's thread: no locks.
"""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from service.errors import Draining, QueueFull


class Admission:
    """Counts requests from arrival to answer, and images from the end of their upload to their lane.

    Args:
        max_queue_size: most images that may wait, for a decoder or for a lane.
        num_computing: how many images are in lanes at this moment; they do not wait any more.
    """

    def __init__(self, *, max_queue_size: int, num_computing: Callable[[], int]) -> None:
        self._max_queue_size = max_queue_size
        self._num_computing = num_computing
        self.num_requests = 0
        """Accepted requests that have no answer yet."""
        self.num_images = 0
        """Images of theirs that have arrived."""
        self._is_closed = False
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def num_waiting(self) -> int:
        """Images that wait for a decoder or a lane, or are being decoded."""
        return max(0, self.num_images - self._num_computing())

    @contextmanager
    def request(self) -> Iterator[None]:
        """Around the whole of one request, its upload included: a stop waits for what is inside.

        Raises:
            Draining: `close` was called.
            QueueFull: as many images as may wait already; its body need not even be read.
        """
        if self._is_closed:
            raise Draining("This replica is shutting down: send the request again, another replica takes it.")
        self._check_room()
        self.num_requests += 1
        self._idle.clear()
        try:
            yield
        finally:
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

    def close(self) -> None:
        """Refuse every request from now on; what was accepted goes on."""
        self._is_closed = True

    async def wait_idle(self) -> None:
        """Until every accepted request has its answer."""
        await self._idle.wait()

    def _check_room(self) -> None:
        if self.num_waiting >= self._max_queue_size:
            raise QueueFull(
                f"{self.num_waiting} images already wait, as many as may: "
                "send it again after the seconds in Retry-After."
            )
