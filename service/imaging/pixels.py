"""Images inside the program: decoded ones, and arrays of pixels."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from service.imaging.colour import as_rgb

Pixels = NDArray[np.uint8]
"""uint8, shape (height, width, 3), RGB, 0-255; a leading axis N makes a batch (NHWC)."""


@dataclass(frozen=True, eq=False)
class Decoded:
    """A decoded image, and its colour profile, which is not applied yet.

    Attributes:
        image: Upright, on white, 8 bits per channel. The mode is L, RGB or CMYK.
        profile: An ICC profile, or None. It may be broken, or belong to another mode.
    """

    image: Image.Image
    profile: bytes | None = None

    @property
    def pixels(self) -> Pixels:
        """A copy of the image without its profile: uint8, shape (height, width, 3), RGB, read-only."""
        return np.asarray(as_rgb(self.image))
