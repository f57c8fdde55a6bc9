"""Modes of images, made 8 bits per channel, on white. The table is in docs/reference/images.md."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from service.imaging.refusals import not_read

_FLAT_MODES = frozenset({"L", "RGB", "CMYK"})
_LEAST_LEVEL = 4_096  # of the brightest 16-bit number


def flatten(image: Image.Image) -> Image.Image:
    """Convert a loaded image to mode L, RGB or CMYK: 8 bits per channel, on white. Profiles are not applied."""
    return _on_white(_eight_bits(image))


def as_rgb(image: Image.Image) -> Image.Image:
    """Convert to mode RGB without a profile. An image in that mode is returned itself."""
    return image if image.mode == "RGB" else image.convert("RGB")


def check_levels(image: Image.Image, name: str) -> None:
    """Refuse a loaded 16-bit image whose numbers use 12 bits or fewer: it would be black.

    Scanners, cameras and microscopes write such files. Raises `UnsupportedImageFormat` where the greatest number is
    below 4,096 and above 0.
    """
    if image.mode.startswith("I;16"):
        greatest, least = int(np.asarray(image).max()), _LEAST_LEVEL
    else:  # Pillow has kept the high bytes
        num_colours = len(image.getbands()) - image.mode.endswith("A")
        greatest = int(np.array(image.getextrema()).reshape(-1, 2)[:num_colours, 1].max())
        least = _LEAST_LEVEL >> 8
    if 0 < greatest < least:
        raise not_read(
            name, "holds numbers of 12 bits or fewer in words of 16", "Scale them to 0-65,535 and send it again"
        )


def _eight_bits(image: Image.Image) -> Image.Image:
    """Keep the high byte of 16-bit grey, as Pillow does of 16-bit colour, and stretch wider grey.

    32-bit and float numbers have no agreed white. The least becomes black and the greatest white.
    """
    if image.mode.startswith("I;16"):
        values = np.asarray(image)
        grey = (values >> 8).astype(np.uint8)
        if "transparency" in image.info:
            grey[values == image.info["transparency"]] = 255
        return Image.fromarray(grey)
    if image.mode in ("I", "F"):
        return Image.fromarray(_stretch(np.array(image, dtype=np.float32)))
    return image


def _stretch(numbers: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Make the least number 0, the greatest 255, and NaN 0. The numbers are changed in place, to save memory."""
    finite = np.isfinite(numbers)
    low = float(numbers.min(where=finite, initial=np.inf))
    high = float(numbers.max(where=finite, initial=-np.inf))
    if low >= high:
        return np.zeros(numbers.shape, np.uint8)
    with np.errstate(all="ignore"):  # numbers at the end of their range may overflow: to white, as it should be
        numbers -= low
        numbers /= high - low
        numbers *= 255
    np.nan_to_num(numbers, copy=False, nan=0, posinf=255, neginf=0)
    return np.rint(numbers, out=numbers).clip(0, 255).astype(np.uint8)


def _on_white(image: Image.Image) -> Image.Image:
    """Return an image of mode L, RGB or CMYK. White shows where it was transparent."""
    if image.mode in ("La", "RGBa"):
        image = image.convert(image.mode.upper())
    if image.has_transparency_data:
        layer = image if image.mode == "RGBA" else image.convert("RGBA")
        paper = Image.new("RGB", image.size, "white")
        paper.paste(layer, mask=layer)
        return paper
    if image.mode == "1":
        return image.convert("L")
    return image if image.mode in _FLAT_MODES else image.convert("RGB")
