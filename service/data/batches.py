"""Photographs on disk -> arrays -> batches: decoded once, their views made ahead of the training step."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from service.data.check import CheckedPhotograph
from service.data.views import Batch, Photographs, Views
from service.errors import DatasetError, ImageError, OutOfMemory
from service.files import open_regular
from service.imaging.decode import decode_image
from service.imaging.pixels import Decoded, ImageLimits, Pixels, ResizeRule
from service.imaging.resize import resize, resize_shorter_side
from service.machine import count_cores

_Item = TypeVar("_Item")
_Made = TypeVar("_Made")

_NUM_WORKERS = min(4, count_cores())  # they share Python's lock: 16 on 16 cores made half as many views as four


@dataclass(frozen=True)
class LabelledPixels:
    """Decoded photographs: `images` uint8, each (height, width, 3); `class_indices` int64 (N,), in the same order."""

    images: Photographs
    class_indices: NDArray[np.int64]

    def repeated(self, times: int) -> "LabelledPixels":
        """All of them `times` over; the repeats have views of their own."""
        return LabelledPixels(list(self.images) * times, np.tile(self.class_indices, times))


def load_whole(
    photographs: Sequence[CheckedPhotograph],
    class_names: Sequence[str],
    shorter_side: int,
    limits: ImageLimits,
) -> LabelledPixels:
    """Decode photographs for training: whole pictures with the shorter side at `shorter_side` pixels.

    Raises:
        DatasetError: names the first photograph that cannot be read or decoded any more.
        OutOfMemory: names the photograph that there is no memory for.
    """
    return _load(photographs, class_names, lambda image: resize_shorter_side(image, shorter_side), limits)


def load_squares(
    photographs: Sequence[CheckedPhotograph],
    class_names: Sequence[str],
    rule: ResizeRule,
    limits: ImageLimits,
) -> LabelledPixels:
    """Decode photographs as serving does, bit for bit; `images` is one uint8 array (N, image_size, image_size, 3).

    Raises as `load_whole`.
    """
    loaded = _load(photographs, class_names, lambda image: resize(image, rule), limits)
    return LabelledPixels(np.asarray(loaded.images), loaded.class_indices)


def _load(
    photographs: Sequence[CheckedPhotograph],
    class_names: Sequence[str],
    shape: Callable[[Decoded], Pixels],
    limits: ImageLimits,
) -> LabelledPixels:
    def read(path: Path) -> Pixels:
        return shape(_decode_again(path, limits))

    index_of = {label: index for index, label in enumerate(class_names)}
    pool = ThreadPoolExecutor(count_cores())
    try:
        images = list(pool.map(read, [photograph.path for photograph in photographs]))
    finally:
        pool.shutdown(cancel_futures=True)  # an error waits for the photographs in work, not for thousands
    return LabelledPixels(images, np.array([index_of[photograph.label] for photograph in photographs], np.int64))


def _decode_again(path: Path, limits: ImageLimits) -> Decoded:
    """Decode a photograph that the check has decoded before. In between a disk or a person may have changed it."""
    try:
        with open_regular(path) as file:
            return decode_image(file.read(limits.max_image_bytes + 1), limits)
    except OutOfMemory as error:
        raise OutOfMemory(f"{path}: {error}") from error
    except OSError as error:
        why = f"It cannot be read any more ({error.strerror})."
    except ImageError as error:
        why = f"{str(error).removesuffix('.')}."
    raise DatasetError(f"{path} has changed since it was checked. {why} Put it back, and give the command again.")


def epoch_batches(
    views: Views, *, batch_size: int, epoch: int, seed: int, workers: int = _NUM_WORKERS
) -> Iterator[Batch]:
    """One epoch in random order, each photograph as one view; what comes depends on `seed` and `epoch` alone.

    Args:
        views: of the training part. Of a counted number the epochs take each in turn; else every epoch has its own.
        batch_size: photographs per batch. The last, smaller batch is left out: every epoch leaves out others.
        epoch: counted from 0; a resumed training asks for the epoch that it has not finished.
        seed: of the training.
        workers: threads that make the batches, ahead of their being asked for.
    """
    num_photographs = len(views)
    order = np.random.default_rng((seed, epoch)).permutation(num_photographs)
    batch_size = min(batch_size, num_photographs)
    batches = [order[start : start + batch_size] for start in range(0, num_photographs - batch_size + 1, batch_size)]

    def make(photographs: NDArray[np.int64]) -> Batch:
        # Neighbours in the folder are at different views: an epoch shows all of these, evenly.
        numbers = (epoch + photographs) % views.num_views if views.num_views else np.full_like(photographs, epoch)
        return views.batch(photographs, numbers)

    return made_ahead(make, batches, workers)


def made_ahead(make: Callable[[_Item], _Made], items: Sequence[_Item], workers: int = _NUM_WORKERS) -> Iterator[_Made]:
    """What `make` makes of each item, in order; `workers` threads make up to twice as many before they are asked for.

    What making one raises is raised where it would have come.
    """
    ahead = 2 * workers
    with ThreadPoolExecutor(workers) as pool:
        waiting = [pool.submit(make, item) for item in items[:ahead]]
        for number in range(len(items)):
            made = waiting.pop(0).result()
            if number + ahead < len(items):
                waiting.append(pool.submit(make, items[number + ahead]))
            yield made
