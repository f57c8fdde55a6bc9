"""Any picture -> the square that the network takes: one rule for evaluation and serving."""

import numpy as np
from PIL import Image

from service.imaging.colour import as_rgb
from service.imaging.pixels import Pixels, ResizeRule

_DEFAULT_RULE = ResizeRule()
_FILTER = Image.Resampling.BILINEAR  # Pillow widens it when scaling down, so it averages; bicubic would ring
_MAX_ASPECT_RATIO = 4


def resize(image: Pixels | Image.Image, rule: ResizeRule = _DEFAULT_RULE) -> Pixels:
    """The centre square of a picture, as the network takes it.

    As if the shorter side were scaled to `rule.shorter_side` and the centre cut out; done in one step on the square
    that will be kept, so that nothing is scaled in vain and the cut need not fall on whole pixels. Smaller pictures
    are enlarged.

    Args:
        image: uint8, shape (height, width, 3), any size from 1 x 1; or the same as Pillow has it, mode RGB or L.
        rule: sizes in pixels; `image_size` at most `shorter_side`.

    Returns:
        uint8, shape (image_size, image_size, 3), read-only.
    """
    picture = image if isinstance(image, Image.Image) else Image.fromarray(image)
    side = min(picture.size) * rule.image_size / rule.shorter_side
    left, top = (picture.width - side) / 2, (picture.height - side) / 2
    box = (left, top, left + side, top + side)
    return np.asarray(as_rgb(picture.resize((rule.image_size, rule.image_size), _FILTER, box=box)))


def resize_shorter_side(image: Pixels, shorter_side: int) -> Pixels:
    """The whole picture for the training cache, its shorter side scaled (also up) to exactly `shorter_side`.

    Returns:
        uint8, shape (height, width, 3), read-only. A picture more than four times as long as wide loses its ends, so
        that a strip of 1 x 50,000 pixels cannot fill the cache.
    """
    height, width, _ = image.shape
    short = min(height, width)
    kept_width, kept_height = min(width, short * _MAX_ASPECT_RATIO), min(height, short * _MAX_ASPECT_RATIO)
    left, top = (width - kept_width) / 2, (height - kept_height) / 2
    box = (left, top, left + kept_width, top + kept_height)
    size = (round(kept_width * shorter_side / short), round(kept_height * shorter_side / short))
    return np.asarray(Image.fromarray(image).resize(size, _FILTER, box=box))
