"""Photographs on disk -> arrays -> batches: decoded once, augmented ahead of the training step."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from service.data.check import CheckedPhotograph
from service.imaging.decode import decode_image
from service.imaging.pixels import ImageLimits, Pixels, ResizeRule
from service.imaging.resize import resize, resize_shorter_side

View = Callable[[Pixels, np.random.Generator], Pixels]
"""Pixels of any size and a source of randomness -> uint8 (image_size, image_size, 3)."""


@dataclass(frozen=True)
class LabelledPixels:
    """Decoded photographs: `images` uint8, each (height, width, 3); `class_indices` int64 (N,), in the same order."""

    images: Sequence[Pixels] | Pixels
    class_indices: NDArray[np.int64]


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


def epoch_batches(
    pixels: LabelledPixels,
    view: View,
    *,
    batch_size: int,
    epoch: int,
    seed: int,
    workers: int = 2,
    ahead: int = 4,
) -> Iterator[tuple[Pixels, NDArray[np.int64]]]:
    """One epoch in random order, each photograph as one fresh view; what comes depends on `seed` and `epoch` alone.

    Args:
        pixels: the training part.
        view: makes the view; it runs in `workers` threads, up to `ahead` batches before they are asked for.
        batch_size: photographs per batch. The last, smaller batch is left out: every epoch leaves out others.
        epoch: counted from 0; a resumed training asks for the epoch that it has not finished.
        seed: of the training.
        workers: threads.
        ahead: batches made in advance.

    Yields:
        uint8 (batch_size, image_size, image_size, 3) and int64 (batch_size,) class indices.
    """
    num_photographs = len(pixels.images)
    order = np.random.default_rng((seed, epoch)).permutation(num_photographs)
    batch_size = min(batch_size, num_photographs)
    batches = [order[start : start + batch_size] for start in range(0, num_photographs - batch_size + 1, batch_size)]

    def make(indices: NDArray[np.int64]) -> Pixels:
        # The stream is the photograph's own, so neither threads nor company change a view.
        return np.stack([view(pixels.images[i], np.random.default_rng((seed, epoch, int(i)))) for i in indices])

    with ThreadPoolExecutor(workers) as pool:
        waiting = [pool.submit(make, indices) for indices in batches[:ahead]]
        for number, indices in enumerate(batches):
            images = waiting.pop(0).result()
            if number + ahead < len(batches):
                waiting.append(pool.submit(make, batches[number + ahead]))
            yield images, pixels.class_indices[indices]
