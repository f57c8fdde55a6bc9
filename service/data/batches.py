"""Photographs on disk -> arrays -> batches: decoded once, augmented ahead of the training step."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from service.data.check import CheckedPhotograph
from service.imaging.decode import decode_image
from service.imaging.pixels import ImageLimits, Pixels, ResizeRule
from service.imaging.resize import resize, resize_shorter_side

_Item = TypeVar("_Item")

View = Callable[[Pixels, np.random.Generator], Pixels]
"""Pixels of any size and a source of randomness -> uint8 (image_size, image_size, 3)."""


@dataclass(frozen=True)
class LabelledPixels:
    """Decoded photographs: `images` uint8, each (height, width, 3); `class_indices` int64 (N,), in the same order."""

    images: Sequence[Pixels] | Pixels
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
    """Decode photographs for training: whole pictures with the shorter side at `shorter_side` pixels."""
    return _load(photographs, class_names, lambda image: resize_shorter_side(image, shorter_side), limits)


def load_squares(
    photographs: Sequence[CheckedPhotograph],
    class_names: Sequence[str],
    rule: ResizeRule,
    limits: ImageLimits,
) -> LabelledPixels:
    """Decode photographs as serving does, bit for bit; `images` is one uint8 array (N, image_size, image_size, 3)."""
    loaded = _load(photographs, class_names, lambda image: resize(image, rule), limits)
    return LabelledPixels(np.asarray(loaded.images), loaded.class_indices)


def _load(
    photographs: Sequence[CheckedPhotograph],
    class_names: Sequence[str],
    shape: Callable[[Pixels], Pixels],
    limits: ImageLimits,
) -> LabelledPixels:
    def read(path: Path) -> Pixels:
        return shape(decode_image(path.read_bytes(), limits))

    index_of = {label: index for index, label in enumerate(class_names)}
    with ThreadPoolExecutor() as pool:
        images = list(pool.map(read, [photograph.path for photograph in photographs]))
    return LabelledPixels(images, np.array([index_of[photograph.label] for photograph in photographs], np.int64))


@dataclass(frozen=True)
class Batch:
    """One training step's photographs, `N` of them.

    `images` is uint8 (N, image_size, image_size, 3); `photographs` and `views`, int64 (N,), say of which photograph
    each is which view.
    """

    images: Pixels
    photographs: NDArray[np.int64]
    views: NDArray[np.int64]


def epoch_batches(
    images: Sequence[Pixels] | Pixels,
    view: View,
    *,
    batch_size: int,
    epoch: int,
    seed: int,
    num_views: int = 0,
    workers: int = 2,
    ahead: int = 4,
) -> Iterator[Batch]:
    """One epoch in random order, each photograph as one view; what comes depends on `seed` and `epoch` alone.

    Args:
        images: the training part, each uint8 (height, width, 3).
        view: makes the view; it runs in `workers` threads, up to `ahead` batches before they are asked for.
        batch_size: photographs per batch. The last, smaller batch is left out: every epoch leaves out others.
        epoch: counted from 0; a resumed training asks for the epoch that it has not finished.
        seed: of the training.
        num_views: how many views of a photograph there are; the epochs take them in turn. 0: every epoch has its own.
        workers: threads.
        ahead: batches made in advance.
    """
    num_photographs = len(images)
    order = np.random.default_rng((seed, epoch)).permutation(num_photographs)
    batch_size = min(batch_size, num_photographs)
    batches = [order[start : start + batch_size] for start in range(0, num_photographs - batch_size + 1, batch_size)]

    def make(photographs: NDArray[np.int64]) -> Batch:
        # Neighbours in the folder are at different views: an epoch shows all of these, evenly.
        views = (epoch + photographs) % num_views if num_views else np.full_like(photographs, epoch)
        return Batch(make_views(images, photographs, views, view, seed), photographs, views)

    with ThreadPoolExecutor(workers) as pool:
        waiting = [pool.submit(make, photographs) for photographs in batches[:ahead]]
        for number in range(len(batches)):
            batch = waiting.pop(0).result()
            if number + ahead < len(batches):
                waiting.append(pool.submit(make, batches[number + ahead]))
            yield batch


def one_ahead(items: Iterator[_Item]) -> Iterator[_Item]:
    """The same items in the same order; a thread makes the next one while the caller is busy with the last.

    None among them would end it. What making an item raises is raised where the item would have come.
    """
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(next, items, None)
        while (item := waiting.result()) is not None:
            waiting = pool.submit(next, items, None)
            yield item


def make_views(
    images: Sequence[Pixels] | Pixels,
    photographs: NDArray[np.int64],
    views: NDArray[np.int64],
    view: View,
    seed: int,
) -> Pixels:
    """View `views[k]` of photograph `photographs[k]`, for every k; uint8 (N, image_size, image_size, 3).

    The source of randomness is the view's own: neither threads nor company change it, and it can be made again.
    """
    return np.stack(
        [
            view(images[i], np.random.default_rng((seed, v, i)))
            for i, v in zip(photographs.tolist(), views.tolist(), strict=True)
        ]
    )
