"""Half of the queue for a batch of images."""

import asyncio
from typing import Any

from service.inference.admission import Admission, Ticket

_FIRST_IMAGES = 4  # of a batch whose pace is unknown
_SHARE_OF_TIMEOUT = 0.25


class Share:
    """Half of the queue's images and bytes, for one batch. The batch waits where a lone image would be refused.

    Other requests may take what is left of the queue. Then the batch is refused, too. Of images that take long the
    batch holds fewer, so that none meets its timeout behind the others. Each has `timeout_s` seconds.
    """

    def __init__(self, ticket: Ticket, admission: Admission, timeout_s: float) -> None:
        self._ticket = ticket
        self._admission = admission
        self._max_bytes = admission.max_queue_bytes // 2
        self._num_images = self._num_done = 0
        self._began_at = admission.clock()
        self._timeout_s = timeout_s
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
        while self._num_images >= min(self._admission.half_of_images(), self._num_in_time()):
            await self._wait()

    def hold(self, num_bytes: int, until: "asyncio.Task[Any]") -> None:
        """Hold an image and its bytes, which the ticket counts, until a task is done."""
        self._num_images += 1
        until.add_done_callback(lambda _: self._let_go(num_bytes))

    def _let_go(self, num_bytes: int) -> None:
        self._num_images -= 1
        self._num_done += 1
        self._ticket.remove_bytes(num_bytes)
        self._is_freed.set()

    def _num_in_time(self) -> float:
        """Return how many images take a share of their timeout at the pace of the batch so far."""
        images_per_s = self._num_done / max(1e-3, self._admission.clock() - self._began_at)
        return max(_FIRST_IMAGES, images_per_s * self._timeout_s * _SHARE_OF_TIMEOUT)

    async def _wait(self) -> None:
        self._is_freed.clear()
        await self._is_freed.wait()
