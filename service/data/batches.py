"""Decoded photographs, and batches that threads make ahead of the training step."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import astuple, dataclass
from functools import partial
from typing import Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from service.data.cache import PixelCache, name_part
from service.data.check import CheckedPhotograph
from service.data.stored import Photographs, Selection, Size
from service.data.views import Batch, Views
from service.errors import DatasetError, ImageError, OutOfMemory
from service.files import digest_bytes, read_bounded
from service.imaging.decode import decode_image
from service.imaging.limits import ImageLimits, ResizeRule
from service.imaging.pixels import Pixels
from service.imaging.resize import resize, resize_shorter_side, scaled_size
from service.machine import count_cores

_Item = TypeVar("_Item")
_Made = TypeVar("_Made")

Form = Literal["full", "square"]
"""Form of decoded photographs: scaled to `rule.shorter_side`, or as serving sees them."""

BLOCK, WINDOW = 32, 64
"""Neighbours that are read together, and blocks that are shuffled together."""

_NUM_WORKERS = min(4, count_cores())  # they share Python's lock. 16 on 16 cores made half as many views as four


@dataclass(frozen=True)
class LabelledPixels:
    """Decoded photographs: `images` uint8, each (height, width, 3). `class_indices` int64 (N,), in the same order."""

    images: Photographs
    class_indices: NDArray[np.int64]

    def repeated(self, times: int) -> "LabelledPixels":
        """Return all of them `times` over. The repeats have views of their own."""
        return LabelledPixels(Selection([self.images] * times), np.tile(self.class_indices, times))

    def with_others(self, others: "LabelledPixels") -> "LabelledPixels":
        """Return all of them, then the others."""
        class_indices = np.concatenate([self.class_indices, others.class_indices])
        return LabelledPixels(Selection([self.images, others.images]), class_indices)

    def take(self, places: Sequence[int]) -> "LabelledPixels":
        """Return the photographs at these places."""
        return LabelledPixels(Selection([self.images], places), self.class_indices[list(places)])

    def sample(self, number: int) -> "LabelledPixels":
        """Return at most `number` of them, evenly chosen, with `images` as one array. All must have one size."""
        step = -(-len(self.images) // number)
        return LabelledPixels(np.asarray(self.images[::step]), self.class_indices[::step])


def load_full_images(
    photographs: Sequence[CheckedPhotograph], class_names: Sequence[str], rule: ResizeRule, limits: ImageLimits
) -> LabelledPixels:
    """Decode photographs for training. The shorter side of each has `rule.shorter_side` pixels.

    Raises:
        DatasetError: A photograph cannot be read or decoded any more. The message names the first.
        OutOfMemory: There is no memory for a photograph. The message names it.
    """
    images = _decode_all(photographs, "full", rule, limits)
    return LabelledPixels(images, _find_class_indices(photographs, class_names))


def load_squares(
    photographs: Sequence[CheckedPhotograph], class_names: Sequence[str], rule: ResizeRule, limits: ImageLimits
) -> LabelledPixels:
    """Decode photographs as serving does, bit for bit. `images` is one uint8 array (N, image_size, image_size, 3).

    Raises as `load_full_images`.
    """
    images = np.asarray(_decode_all(photographs, "square", rule, limits))
    return LabelledPixels(images, _find_class_indices(photographs, class_names))


def store_photographs(
    photographs: Sequence[CheckedPhotograph], class_names: Sequence[str], form: Form, rule: ResizeRule,
    limits: ImageLimits, cache: PixelCache, *, is_needed: bool,
) -> LabelledPixels | None:  # fmt: skip
    """Return photographs in a form from the cache. None means that it lacks them, and they are not needed there.

    Where `is_needed`, they are decoded and written first. Raises `TrainingError` if they cannot be kept there, or as
    `load_full_images`.
    """
    sizes = [decoded_size(photograph, form, rule) for photograph in photographs]
    digests = [photograph.file_digest for photograph in photographs]
    key = name_part(form, (*astuple(rule), *astuple(limits)), digests)

    def pixels_from(number: int) -> Iterator[Pixels]:
        return made_ahead(partial(_decode, form=form, rule=rule, limits=limits), photographs[number:], count_cores())

    found = cache.write(key, sizes, pixels_from) if is_needed else cache.find(key, sizes)
    return None if found is None else LabelledPixels(found, _find_class_indices(photographs, class_names))


def decoded_size(photograph: CheckedPhotograph, form: Form, rule: ResizeRule) -> Size:
    """Return height and width of a photograph in a form, in pixels."""
    return scaled_size(*photograph.size, rule.shorter_side) if form == "full" else (rule.image_size, rule.image_size)


def _find_class_indices(photographs: Sequence[CheckedPhotograph], class_names: Sequence[str]) -> NDArray[np.int64]:
    index_of = {label: index for index, label in enumerate(class_names)}
    return np.array([index_of[photograph.label] for photograph in photographs], np.int64)


def _decode_all(
    photographs: Sequence[CheckedPhotograph], form: Form, rule: ResizeRule, limits: ImageLimits
) -> list[Pixels]:  # fmt: skip
    pool = ThreadPoolExecutor(count_cores())
    try:
        return list(pool.map(partial(_decode, form=form, rule=rule, limits=limits), photographs))
    finally:
        pool.shutdown(cancel_futures=True)  # an error waits for the photographs in work, not for thousands


def _decode(photograph: CheckedPhotograph, form: Form, rule: ResizeRule, limits: ImageLimits) -> Pixels:
    """Decode a photograph again after the check. It may have changed since."""
    path = photograph.path
    try:
        data = read_bounded(path, limits.max_image_bytes)
        image = decode_image(data, limits)
        if photograph.file_digest in ("", digest_bytes(data)):
            return resize_shorter_side(image, rule.shorter_side) if form == "full" else resize(image, rule)
        why = "It is another file now."
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
    each epoch has views of its own. A smaller last batch is left out. `workers` threads make batches ahead. The order
    of photographs in a file is that of `order_by_blocks`. With the `share` (k, n), process k of n makes its equal share
    of each batch, and no other view.
    """
    num_photographs, random = len(views), np.random.default_rng((views.seed, epoch))
    order = order_by_blocks(num_photographs, random) if views.is_stored else random.permutation(num_photographs)
    batch_size = min(batch_size, num_photographs)
    starts = range(0, num_photographs - batch_size + 1, batch_size)
    batches = [order[start : start + batch_size][share[0] :: share[1]] for start in starts]

    def make(photographs: NDArray[np.int64]) -> Batch:
        # Neighbours in the folder are at different views: an epoch shows all of these, evenly.
        numbers = (epoch + photographs) % views.num_views if views.num_views else np.full_like(photographs, epoch)
        return views.batch(photographs, numbers)

    return made_ahead(make, batches, workers)


def order_by_blocks(
    number: int, random: np.random.Generator, *, block: int = BLOCK, window: int = WINDOW
) -> NDArray[np.int64]:  # fmt: skip
    """Return the numbers from 0 in random order, int64 (number,), for photographs in a file.

    Blocks of neighbours come in random order. The photographs of `window` blocks are shuffled together. So the disk
    reads whole blocks, and a batch has photographs from all over the file.
    """
    blocks = np.array_split(np.arange(number), -(-number // block))
    shuffled = [blocks[place] for place in random.permutation(len(blocks))]
    windows = [np.concatenate(shuffled[start : start + window]) for start in range(0, len(shuffled), window)]
    return np.concatenate([random.permutation(one) for one in windows])


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
