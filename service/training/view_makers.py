"""Processes that make views ahead of a training: threads share Python's lock."""

import math
import multiprocessing
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from itertools import repeat
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from service.data.views import MakeView, Photographs, Views
from service.machine import count_cores

_CHUNK = 64  # views that one call makes, about

_Made = tuple[NDArray[np.uint8], NDArray[np.int64], NDArray[np.float32]]


class ViewMakers:
    """One process for each core. They are forked, and see the photographs in this process's memory: before JAX begins.

    Args:
        photographs: decoded, of which some are selected for each training.
        make: makes a view, as of `Views`.
    """

    def __init__(self, photographs: Photographs, make: MakeView) -> None:
        self.photographs, self.make = photographs, make
        self._pool = ProcessPoolExecutor(
            count_cores(), multiprocessing.get_context("fork"), initializer=_begin, initargs=(photographs, make)
        )
        self._pool.submit(int).result()  # all are forked now

    def make_all(
        self, selection: NDArray[np.int64], seed: int, places: list[tuple[int, NDArray[np.int64]]]
    ) -> Iterator[_Made]:
        """For each (view, numbers): what `Views` would make of these photographs of the selection."""
        views, numbers = zip(*places, strict=True)
        return self._pool.map(_make, repeat(selection), repeat(seed), views, numbers)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown(cancel_futures=True)


class MadeViews(Views):
    """Views that are all made, and kept, as soon as this is built.

    Args:
        makers: who make them.
        selection: int64, which of the makers' photographs these are views of, in order.
        seed, num_views: as of `Views`.
    """

    def __init__(self, makers: ViewMakers, selection: NDArray[np.int64], seed: int, num_views: int) -> None:
        photographs = [makers.photographs[number] for number in selection.tolist()]
        super().__init__(photographs, makers.make, seed, num_views, free_bytes=sys.maxsize)
        chunks = np.array_split(np.arange(len(selection)), math.ceil(len(selection) / _CHUNK))
        places = [(view, chunk) for view in range(num_views) for chunk in chunks]
        for (view, numbers), made in zip(places, makers.make_all(selection, seed, places), strict=True):
            self._pixels[view, numbers], self._others[view, numbers], self._shares[view, numbers] = made
        self._is_kept[:] = True


_own: list[tuple[Photographs, MakeView]] = []  # of a maker's process


def _begin(photographs: Photographs, make: MakeView) -> None:
    _own.append((photographs, make))


def _make(selection: NDArray[np.int64], seed: int, view: int, numbers: NDArray[np.int64]) -> _Made:
    photographs, make = _own[0]
    selected = [photographs[number] for number in selection.tolist()]
    views = Views(selected, make, seed)
    batch = views.batch(numbers, np.full_like(numbers, view))
    return batch.images, batch.others, batch.shares
