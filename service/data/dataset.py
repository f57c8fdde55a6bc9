"""Dataset of a training. It is a folder's check, its split and the pixels of its parts."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from service.data.batches import LabelledPixels, load_full_images, load_squares
from service.data.check import DataCheck, check_folder
from service.data.folder import Folder
from service.data.given_split import take_given_split
from service.data.losses import describe_losses, refuse_lost_classes
from service.data.outliers import load_outliers
from service.data.parts import Part
from service.data.split import Split, split_photographs
from service.errors import DatasetError
from service.imaging.limits import ImageLimits, ResizeRule

RULE = ResizeRule()


@dataclass(frozen=True, eq=False)
class Dataset:
    """A checked and split folder.

    `rule` makes squares of the photographs. `limits` bound each. Pixels are decoded once and kept. `outliers` are files
    of images that show none of the classes. They are in no part.
    """

    check: DataCheck
    split: Split
    limits: ImageLimits = field(default_factory=ImageLimits)
    rule: ResizeRule = RULE
    outliers: tuple[Path, ...] = ()
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

    def full_images(self, *parts: Part) -> LabelledPixels:
        """Return the photographs of these parts for training. Raises as `load_full_images`."""
        for part in parts:
            if part not in self._full_images:
                self._full_images[part] = self._load(load_full_images, part)
        found = [self._full_images[part] for part in parts]
        images = [image for one in found for image in one.images]
        return LabelledPixels(images, np.concatenate([one.class_indices for one in found]))

    def squares(self, part: Part) -> LabelledPixels:
        """Return the photographs of a part as serving sees them. Raises as `load_full_images`."""
        if part not in self._squares:
            self._squares[part] = self._load(load_squares, part)
        return self._squares[part]

    def with_outliers(self, photographs: LabelledPixels) -> LabelledPixels:
        """Return photographs for training, then the outliers. Raises as `load_outliers`."""
        if not self.outliers:
            return photographs
        return photographs.with_others(load_outliers(self.outliers, self.rule, self.limits))

    def sample_squares(self, part: Part, number: int) -> LabelledPixels:
        """Return at most `number` photographs of a part, evenly chosen, as `squares` does."""
        return self._load(load_squares, part, -(-len(self.split.photographs[part]) // number))

    def _load(self, load: Callable[..., LabelledPixels], part: Part, step: int = 1) -> LabelledPixels:
        return load(self.split.photographs[part][::step], self.class_names, self.rule, self.limits)


def open_dataset(
    folder: Folder,
    seed: int,
    limits: ImageLimits,
    *,
    checking: Callable[[int, int], None] | None = None,
    found: Callable[[DataCheck], None] | None = None,
) -> Dataset:
    """Check a folder, as `read_folder` lists it, and split its photographs. A split folder keeps its parts.

    `checking` is called with the numbers of checked photographs and of all, `found` with the check before the split.

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
    return Dataset(check, split, limits)
