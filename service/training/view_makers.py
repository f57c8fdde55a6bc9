"""Processes that make views. Threads would share Python's lock."""

import math
import multiprocessing
import signal
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from service.data.stored import Photographs
from service.data.views import Batch, MakeView, Views
from service.machine import count_cores


def make_views(photographs: Photographs, make: MakeView, seed: int, num_views: int, *, chunk: int = 64) -> Views:
    """Make all views with one process a core, and keep them.

    The processes read the photographs from a temporary file. `make` can be pickled. One call makes at most `chunk`
    views. The other arguments are as of `Views`. Raises `OSError` if the file cannot be written.
    """
    views = Views(photographs, make, seed, num_views, free_bytes=sys.maxsize)
    chunks = np.array_split(np.arange(len(views)), math.ceil(len(views) / chunk))
    numbers = [(part, np.full_like(part, view)) for view in range(num_views) for part in chunks]
    with tempfile.TemporaryDirectory(prefix="flowers-views-") as scratch:
        path = Path(scratch, "photographs")
        with path.open("wb") as file:
            for photograph in photographs:
                photograph.tofile(file)
        shapes = [photograph.shape for photograph in photographs]
        # A fresh process each: JAX and TensorFlow must not be forked.
        spawn = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(count_cores(), spawn, _open, (path, shapes, make, seed)) as pool:
            try:
                for batch in pool.map(_make, *zip(*numbers, strict=True)):
                    views.keep(batch)
            except BaseException:
                pool.shutdown(cancel_futures=True)  # Ctrl-C waits for the views in work, not for all
                raise
    return views


_own: list[Views] = []  # of this process


def _open(path: Path, shapes: list[tuple[int, ...]], make: MakeView, seed: int) -> None:
    """Map the photographs of the file into this process. Ctrl-C is for the process that asks for views."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    pixels = np.memmap(path, np.uint8, "r")
    ends = np.cumsum([math.prod(shape) for shape in shapes])
    parts = np.split(pixels, ends[:-1])
    _own.append(Views([part.reshape(shape) for part, shape in zip(parts, shapes, strict=True)], make, seed))


def _make(photographs: NDArray[np.int64], views: NDArray[np.int64]) -> Batch:
    return _own[0].batch(photographs, views)
