"""Photographs that show none of the classes, in a folder for each source."""

from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from service.data.batches import LabelledPixels
from service.errors import DatasetError, ImageError
from service.files import open_regular
from service.imaging.decode import decode_image
from service.imaging.limits import ImageLimits, ResizeRule
from service.imaging.pixels import Pixels
from service.imaging.resize import resize_shorter_side
from service.machine import count_cores

NONE_OF_THESE = -1
"""Class index of a photograph that shows none of the classes."""

_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp"})


def list_outliers(folder: Path, *, without: Collection[str] = (), most: int = 0) -> dict[str, list[Path]]:
    """List the images of each source, a subfolder of `folder`, by its name.

    The sources `without` are left out. Of a source with more than `most` images, as many are taken, evenly. 0 means
    all. Raises `DatasetError` for a folder without such images.
    """
    if not folder.is_dir():
        raise DatasetError(f"There is no folder {folder}. Give a folder that holds one subfolder per source.")
    found = {
        source.name: sorted(path for path in source.iterdir() if path.suffix.lower() in _SUFFIXES)
        for source in sorted(folder.iterdir())
        if source.is_dir() and not source.name.startswith(".")
    }
    chosen = {
        name: [paths[place * len(paths) // most] for place in range(most)] if 0 < most < len(paths) else paths
        for name, paths in found.items()
        if paths and name not in without
    }
    if not chosen:
        raise DatasetError(f"{folder} has no images in subfolders. Add JPEG, PNG or WebP images.")
    return chosen


def load_outliers(paths: Sequence[Path], rule: ResizeRule, limits: ImageLimits) -> LabelledPixels:
    """Decode images for training, as `load_full_images` does. Their class index is `NONE_OF_THESE`.

    Raises `DatasetError` for an image that cannot be read. The message names the first.
    """
    with ThreadPoolExecutor(count_cores()) as pool:
        images = list(pool.map(lambda path: _load(path, rule, limits), paths))
    return LabelledPixels(images, np.full(len(images), NONE_OF_THESE, np.int64))


def _load(path: Path, rule: ResizeRule, limits: ImageLimits) -> Pixels:
    try:
        with open_regular(path) as file:
            return resize_shorter_side(decode_image(file.read(limits.max_image_bytes + 1), limits), rule.shorter_side)
    except (OSError, ImageError) as error:
        raise DatasetError(f"{path} cannot be read as an image. {error} Remove it, or put it back.") from error
