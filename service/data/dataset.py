"""Dataset of a training. It is a folder's check, its split and the pixels of its parts."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from service.data.batches import (
    Form,
    LabelledPixels,
    decoded_size,
    load_full_images,
    load_squares,
    store_photographs,
)
from service.data.cache import PixelCache
from service.data.check import CheckedPhotograph, DataCheck, check_folder
from service.data.folder import Folder
from service.data.given_split import take_given_split
from service.data.losses import describe_losses, refuse_lost_classes
from service.data.outliers import load_outliers
from service.data.parts import Part
from service.data.split import Split, split_photographs
from service.data.stored import Selection, record_bytes
from service.errors import DatasetError
from service.imaging.limits import ImageLimits, ResizeRule

RULE = ResizeRule()


@dataclass(frozen=True, eq=False)
class Dataset:
    """A checked and split folder.

    `rule` makes squares of the photographs. `limits` bound each. Pixels are decoded once and kept, in memory or in the
    `cache`. `outliers` are files of images that show none of the classes. They are in no part. Those of
    `held_out_sources`, by source, are not learned.
    """

    check: DataCheck
    split: Split
    limits: ImageLimits = field(default_factory=ImageLimits)
    rule: ResizeRule = RULE
    outliers: tuple[Path, ...] = ()
    held_out_sources: Mapping[str, Sequence[Path]] = field(default_factory=dict)
    cache: PixelCache | None = None
    _full_images: dict[Part, LabelledPixels] = field(default_factory=dict, repr=False)
    _squares: dict[Part, LabelledPixels] = field(default_factory=dict, repr=False)

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes, in the order of their indices."""
        return self.check.class_names

    @property
    def seed(self) -> int:
        """Seed of split, initial weights, order and views."""
        return self.split.seed

    @cached_property
    def is_larger_than_memory(self) -> bool:
        """Whether the decoded photographs need the cache. It is decided once. Without a cache it is False."""
        sizes = (decoded_size(photograph, "full", self.rule) for photograph in self.check.photographs)
        return self.cache is not None and self.cache.is_needed(sum(map(record_bytes, sizes)))

    def full_images(self, *parts: Part) -> LabelledPixels:
        """Return the photographs of these parts for training. Raises as `load_full_images` and `store_photographs`."""
        for part in parts:
            if part not in self._full_images:
                self._full_images[part] = self.load("full", self.split.photographs[part])
        found = [self._full_images[part] for part in parts]
        class_indices = np.concatenate([one.class_indices for one in found])
        return LabelledPixels(Selection([one.images for one in found]), class_indices)

    def squares(self, part: Part) -> LabelledPixels:
        """Return the photographs of a part as serving sees them. Raises as `full_images`."""
        if part not in self._squares:
            self._squares[part] = self.load("square", self.split.photographs[part])
        return self._squares[part]

    def load(self, form: Form, photographs: Sequence[CheckedPhotograph]) -> LabelledPixels:
        """Return these photographs in a form, in memory or in the cache. Raises as `full_images`.

        What the cache has already is taken from there. So a resumed training goes on in the same order.
        """
        how = photographs, self.class_names
        if self.cache is not None:
            is_needed = self.is_larger_than_memory
            stored = store_photographs(*how, form, self.rule, self.limits, self.cache, is_needed=is_needed)
            if stored is not None:
                return stored
        return (load_full_images if form == "full" else load_squares)(*how, self.rule, self.limits)

    def with_outliers(self, photographs: LabelledPixels) -> LabelledPixels:
        """Return photographs for training, then the outliers. Raises as `load_outliers`."""
        if not self.outliers:
            return photographs
        return photographs.with_others(load_outliers(self.outliers, self.rule, self.limits))

    def sample_squares(self, part: Part, number: int) -> LabelledPixels:
        """Return at most `number` photographs of a part, evenly chosen, as `load_squares` does."""
        photographs = self.split.photographs[part]
        step = -(-len(photographs) // number)
        return load_squares(photographs[::step], self.class_names, self.rule, self.limits)


def open_dataset(
    folder: Folder,
    seed: int,
    limits: ImageLimits,
    *,
    cache: PixelCache | None = None,
    checking: Callable[[int, int], None] | None = None,
    found: Callable[[DataCheck], None] | None = None,
) -> Dataset:
    """Check a folder, as `read_folder` lists it, and split its photographs. A split folder keeps its parts.

    `cache` is for photographs that do not fit into memory. Without one they are kept in memory. `checking` is called
    with the numbers of checked photographs and of all, `found` with the check before the split.

    Raises:
        DatasetError: The folder cannot be trained on.
    """
    check = check_folder(folder, limits, checking)
    if found is not None:
        found(check)
    refuse_lost_classes(check)
    try:
        split = take_given_split(check, seed) if check.given_parts else split_photographs(check, seed)
    except DatasetError as error:
        raise DatasetError(f"{error} {describe_losses(check)}".rstrip()) from error
    return Dataset(check, split, limits, cache=cache)
