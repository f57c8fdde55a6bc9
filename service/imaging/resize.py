"""The square that the network takes, by one rule for evaluation and serving."""

import numpy as np
from PIL import Image

from service.imaging.colour import as_rgb
from service.imaging.limits import ResizeRule
from service.imaging.pixels import Decoded, Pixels
from service.imaging.profiles import find_conversion

_DEFAULT_RULE = ResizeRule()
_FILTER = Image.Resampling.BILINEAR  # Pillow widens it when scaling down, so it averages; bicubic would ring
_MAX_ASPECT_RATIO = 4


def resize(image: Decoded | Pixels, rule: ResizeRule = _DEFAULT_RULE) -> Pixels:
    """Cut the centre square of an image in sRGB, as the network takes it.

    It is as if the shorter side were scaled to `rule.shorter_side` and the centre cut out. One step does both, and the
    cut need not fall on whole pixels. Smaller images are enlarged.

    Args:
        image: A decoded image, or uint8, shape (height, width, 3), sRGB. Any size from 1 x 1.
        rule: Sizes in pixels. `image_size` is at most `shorter_side`.

    Returns:
        uint8, shape (image_size, image_size, 3), read-only.
    """
    decoded = _as_decoded(image)
    width, height = decoded.image.size
    side = min(width, height) * rule.image_size / rule.shorter_side
    left, top = (width - side) / 2, (height - side) / 2
    return _scale(decoded, (rule.image_size, rule.image_size), (left, top, left + side, top + side))


def resize_shorter_side(image: Decoded | Pixels, shorter_side: int) -> Pixels:
    """Scale a whole image in sRGB for the training cache, so that its shorter side has `shorter_side` pixels.

    Returns:
        uint8, shape (height, width, 3), read-only. An image more than four times as long as wide loses its ends. Else a
        strip of 1 x 50,000 pixels would fill the cache.
    """
    decoded = _as_decoded(image)
    width, height = decoded.image.size
    kept_width, kept_height = _kept_size(width, height)
    left, top = (width - kept_width) / 2, (height - kept_height) / 2
    box = (left, top, left + kept_width, top + kept_height)
    scaled_height, scaled_width = scaled_size(height, width, shorter_side)
    return _scale(decoded, (scaled_width, scaled_height), box)


def scaled_size(height: int, width: int, shorter_side: int) -> tuple[int, int]:
    """Return height and width that `resize_shorter_side` gives an image of this size, in pixels."""
    kept_width, kept_height = _kept_size(width, height)
    short = min(height, width)
    return round(kept_height * shorter_side / short), round(kept_width * shorter_side / short)


def _kept_size(width: int, height: int) -> tuple[int, int]:
    longest = min(height, width) * _MAX_ASPECT_RATIO
    return min(width, longest), min(height, longest)


def _as_decoded(image: Decoded | Pixels) -> Decoded:
    return image if isinstance(image, Decoded) else Decoded(Image.fromarray(image))


def _scale(decoded: Decoded, size: tuple[int, int], box: tuple[float, float, float, float]) -> Pixels:
    """Scale the `box` of an image to `size`. Colours are converted after that where it is right, as fewest are left.

    Without a conversion, CMYK becomes RGB before the resize, and grey after it.
    """
    image, conversion = decoded.image, find_conversion(decoded.profile, decoded.image.mode)
    if conversion is not None and not conversion.is_last:
        image = conversion.apply(image)
    elif image.mode == "CMYK":
        image = as_rgb(image)
    image = image.resize(size, _FILTER, box=box)
    if conversion is not None and conversion.is_last:
        image = conversion.apply(image, in_place=True)
    return np.asarray(as_rgb(image))
