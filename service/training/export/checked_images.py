"""Images that an exported file is compared on: those of a folder, or views of a few samples.

Each comes with the square that the network takes of it.
"""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
from PIL import Image

from service.errors import ImageError
from service.files import read_bounded
from service.imaging.decode import decode_image
from service.imaging.limits import ImageLimits, ResizeRule
from service.imaging.pixels import Pixels
from service.imaging.resize import resize, resize_shorter_side

NUM_CHECKED = 200
"""Number of images in a comparison."""

_LEAST_SHARE = 0.4  # of a side that a view keeps
_SCALES = (0.3, 2.5)

Pair = tuple[Pixels, Pixels]
"""A whole image in sRGB, uint8 (height, width, 3), and its square, uint8 (image_size, image_size, 3)."""


def read_pairs(paths: Sequence[Path], rule: ResizeRule) -> Iterator[Pair]:
    """Yield up to 200 of the images, spread over the list. One that cannot be decoded is left out."""
    limits = ImageLimits()
    places = np.linspace(0, len(paths) - 1, min(NUM_CHECKED, len(paths))).round().astype(int)
    for place in places:
        with suppress(ImageError, OSError):
            decoded = decode_image(read_bounded(paths[place], limits.max_image_bytes), limits)
            yield resize_shorter_side(decoded, min(decoded.image.size)), resize(decoded, rule)


def list_views(paths: Sequence[Path], rule: ResizeRule) -> Iterator[Pair]:
    """Yield 200 views of some images: parts of them, mirrored or not, in sizes from a third to the double.

    The same images give the same views.
    """
    random = np.random.default_rng(0)
    wholes = [Image.fromarray(decode_image(path.read_bytes()).pixels) for path in paths]
    for number in range(NUM_CHECKED):
        whole = wholes[number % len(wholes)]
        shares = random.uniform(_LEAST_SHARE, 1, 2)
        width, height = (shares * whole.size).astype(int)
        left, top = (random.uniform(0, 1, 2) * (whole.width - width, whole.height - height)).astype(int)
        scale = random.uniform(*_SCALES)
        part = whole.resize(
            (max(1, int(scale * width)), max(1, int(scale * height))), box=(left, top, left + width, top + height)
        )
        view = np.asarray(part)[:, :: random.choice((-1, 1))].copy()
        yield view, resize(view, rule)
