"""Views of photographs. A seed makes each again, and memory keeps them where it allows."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from service.data.stored import Photographs, is_stored
from service.imaging.pixels import Pixels
from service.machine import memory_left


@dataclass(frozen=True)
class View:
    """View with `share` of its own photograph and 1 - `share` of `other`. `pixels` is uint8 (size, size, 3)."""

    pixels: Pixels
    other: int
    share: float


MakeView = Callable[[Photographs, int, np.random.Generator], View]
"""Function from photographs, the number of one and a source of randomness to a view of it."""


@dataclass(frozen=True)
class Batch:
    """Batch of N views for one step.

    `images` is uint8 (N, size, size, 3). `photographs` and `views`, int64 (N,), number them. `others`, int64 (N,), are
    the photographs mixed in. `shares`, float32 (N,), are the shares of their own photographs.
    """

    images: Pixels
    photographs: NDArray[np.int64]
    views: NDArray[np.int64]
    others: NDArray[np.int64]
    shares: NDArray[np.float32]


class Views:
    """Views that `make` makes of photographs. View `v` of photograph `i` is the same each time and on any thread.

    Each photograph has `num_views` numbered views. They are kept once made, if all take at most half of `free_bytes`,
    or of what `memory_left` says. 0 means no end of views, which are not kept.
    """

    def __init__(
        self, photographs: Photographs, make: MakeView, seed: int, num_views: int = 0, free_bytes: int | None = None
    ) -> None:
        self._photographs, self._make, self.seed, self.num_views = photographs, make, seed, num_views
        self.is_stored = is_stored(photographs)
        self.is_keeping = False
        if num_views == 0:
            return
        shape, one = (num_views, len(photographs)), self._made(0, 0).pixels
        free_bytes = memory_left() if free_bytes is None else free_bytes
        self.is_keeping = num_views * len(photographs) * one.nbytes <= free_bytes // 2
        if self.is_keeping:
            self._is_kept = np.zeros(shape, np.bool_)
            self._pixels = np.empty((*shape, *one.shape), np.uint8)
            self._others, self._shares = np.empty(shape, np.int64), np.empty(shape, np.float32)

    def __len__(self) -> int:
        """Return the number of photographs."""
        return len(self._photographs)

    def batch(self, photographs: NDArray[np.int64], views: NDArray[np.int64]) -> Batch:
        """Return view `views[k]` of photograph `photographs[k]`, for every k."""
        if not self.is_keeping:
            made = [self._made(i, v) for i, v in zip(photographs.tolist(), views.tolist(), strict=True)]
            others, shares = [view.other for view in made], [view.share for view in made]
            pixels = np.stack([view.pixels for view in made])
            return Batch(pixels, photographs, views, np.array(others, np.int64), np.array(shares, np.float32))
        missing = ~self._is_kept[views, photographs]
        for i, v in zip(photographs[missing].tolist(), views[missing].tolist(), strict=True):
            view = self._made(i, v)
            self._pixels[v, i], self._others[v, i], self._shares[v, i] = view.pixels, view.other, view.share
            self._is_kept[v, i] = True  # last: another thread may look for it
        place = views, photographs
        return Batch(self._pixels[place], photographs, views, self._others[place], self._shares[place])

    def keep(self, batch: Batch) -> None:
        """Take views that another process has made. They must be numbered and kept."""
        place = batch.views, batch.photographs
        self._pixels[place], self._others[place], self._shares[place] = batch.images, batch.others, batch.shares
        self._is_kept[place] = True

    def _made(self, photograph: int, view: int) -> View:
        return self._make(self._photographs, photograph, np.random.default_rng((self.seed, view, photograph)))
