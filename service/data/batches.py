"""Decoded photographs, and batches that threads make ahead of the training step."""

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
from service.imaging.limits import ImageLimits, ResizeRule
from service.imaging.pixels import Decoded, Pixels
from service.imaging.resize import resize, resize_shorter_side
from service.machine import count_cores

_Item = TypeVar("_Item")
_Made = TypeVar("_Made")

_NUM_WORKERS = min(4, count_cores())  # they share Python's lock. 16 on 16 cores made half as many views as four


@dataclass(frozen=True)
class LabelledPixels:
    """Decoded photographs: `images` uint8, each (height, width, 3). `class_indices` int64 (N,), in the same order."""

    images: Photographs
    class_indices: NDArray[np.int64]

    def repeated(self, times: int) -> "LabelledPixels":
        """Return all of them `times` over. The repeats have views of their own."""
        return LabelledPixels(list(self.images) * times, np.tile(self.class_indices, times))

    def with_others(self, others: "LabelledPixels") -> "LabelledPixels":
        """Return all of them, then the others."""
        class_indices = np.concatenate([self.class_indices, others.class_indices])
        return LabelledPixels([*self.images, *others.images], class_indices)


def load_full_images(
    photographs: Sequence[CheckedPhotograph], class_names: Sequence[str], rule: ResizeRule, limits: ImageLimits
) -> LabelledPixels:
    """Decode photographs for training. The shorter side of each has `rule.shorter_side` pixels.

    Raises:
        DatasetError: A photograph cannot be read or decoded any more. The message names the first.
        OutOfMemory: There is no memory for a photograph. The message names it.
    """
    return _load(photographs, class_names, lambda image: resize_shorter_side(image, rule.shorter_side), limits)


def load_squares(
    photographs: Sequence[CheckedPhotograph], class_names: Sequence[str], rule: ResizeRule, limits: ImageLimits
) -> LabelledPixels:
    """Decode photographs as serving does, bit for bit. `images` is one uint8 array (N, image_size, image_size, 3).

    Raises as `load_full_images`.
    """
    loaded = _load(photographs, class_names, lambda image: resize(image, rule), limits)
    return LabelledPixels(np.asarray(loaded.images), loaded.class_indices)


def _load(
    photographs: Sequence[CheckedPhotograph],
    class_names: Sequence[str],
    shape: Callable[[Decoded], Pixels],
    limits: ImageLimits,
) -> LabelledPixels:
    index_of = {label: index for index, label in enumerate(class_names)}
    pool = ThreadPoolExecutor(count_cores())
    try:
        images = list(pool.map(lambda photograph: shape(_decode_again(photograph.path, limits)), photographs))
    finally:
        pool.shutdown(cancel_futures=True)  # an error waits for the photographs in work, not for thousands
    return LabelledPixels(images, np.array([index_of[photograph.label] for photograph in photographs], np.int64))


def _decode_again(path: Path, limits: ImageLimits) -> Decoded:
    """Decode a photograph again after the check. It may have changed since."""
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
    views: Views, *, batch_size: int, epoch: int, share: tuple[int, int] = (0, 1), workers: int = _NUM_WORKERS
) -> Iterator[Batch]:
    """Yield the batches of epoch 0, 1, .. in random order, each photograph as one view.

    They depend on the seed of `views` and on `epoch` alone. The epochs take numbered views in turn. Without numbers
    each epoch has views of its own. A smaller last batch is left out. `workers` threads make batches ahead.
    With the `share` (k, n), process k of n makes its equal share of each batch, and no other view.
    """
    num_photographs = len(views)
    order = np.random.default_rng((views.seed, epoch)).permutation(num_photographs)
    batch_size = min(batch_size, num_photographs)
    starts = range(0, num_photographs - batch_size + 1, batch_size)
    batches = [order[start : start + batch_size][share[0] :: share[1]] for start in starts]

    def make(photographs: NDArray[np.int64]) -> Batch:
        # Neighbours in the folder are at different views: an epoch shows all of these, evenly.
        numbers = (epoch + photographs) % views.num_views if views.num_views else np.full_like(photographs, epoch)
        return views.batch(photographs, numbers)

    return made_ahead(make, batches, workers)


def made_ahead(make: Callable[[_Item], _Made], items: Sequence[_Item], workers: int = _NUM_WORKERS) -> Iterator[_Made]:
    """Yield `make(item)` for each item, in order. `workers` threads keep twice as many ready.

    An error of `make` is raised in its item's place.
    """
    ahead = 2 * workers
    with ThreadPoolExecutor(workers) as pool:
        waiting = [pool.submit(make, item) for item in items[:ahead]]
        for number in range(len(items)):
            made = waiting.pop(0).result()
            if number + ahead < len(items):
                waiting.append(pool.submit(make, items[number + ahead]))
            yield made
