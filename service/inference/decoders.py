"""Threads and processes that decode images ahead of their lane, and the pixels that they may hold together."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager


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
