"""Heat maps: a square with an overlay of a grid's positive values, as PNG."""

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from service.imaging.pixels import Pixels

_COLOUR = (255, 0, 255)  # magenta differs from leaves, and from white, yellow and red petals
_MAX_OPACITY = 0.7
_MIN_SCALE = 0.01  # a drop that is no more than rounding must not glow


def draw_heat_map(square: Pixels, grid: NDArray[np.float32]) -> bytes:
    """Lay a grid over a square, more opaque where its values are larger.

    The largest value has the full opacity of 70 %. A largest value below 0.01 has less. Values below 0 count as 0, and
    leave the square as it is. Between the centres of the cells the overlay is interpolated.

    Args:
        square: uint8, shape (size, size, 3), sRGB.
        grid: float32, shape (rows, columns), rows from the top. It covers the square.

    Returns:
        A PNG image of the square's size, RGB.
    """
    heat = np.maximum(grid, 0)
    heat /= max(float(heat.max()), _MIN_SCALE)
    height, width = square.shape[:2]
    smooth = Image.fromarray(heat).resize((width, height), Image.Resampling.BILINEAR)
    opacity = np.asarray(smooth)[..., np.newaxis] * _MAX_OPACITY
    blended = square * (1 - opacity) + np.array(_COLOUR, np.float32) * opacity
    buffer = io.BytesIO()
    Image.fromarray(blended.round().astype(np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()
