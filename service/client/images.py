"""Images of a caller as the bytes of a file. NumPy and Pillow are imported for their own objects only."""

import io
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from service.errors import UnreadableImage
from service.files import UnfitFile, read_regular

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL.Image import Image

ImageSource: TypeAlias = "str | os.PathLike[str] | bytes | bytearray | memoryview | Image | NDArray[np.uint8]"
"""Path of a file, bytes of a file, Pillow image, or array of uint8, shape (height, width, 3), RGB."""

_MAX_FILE_BYTES = 1024**3  # the service has its own limit
_MODES_OF_PNG = ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")
_MODES_WITHOUT_RANGE = ("F", "I")
_NUM_CHANNELS = 3


def encode_image(image: "ImageSource") -> bytes:
    """Return the bytes of an image file. A Pillow image and an array become a PNG without loss.

    A Pillow image is turned upright as its EXIF orientation says. Raises `UnreadableImage`.
    """
    if isinstance(image, str | os.PathLike):
        return _read_file(Path(image))
    if isinstance(image, bytes | bytearray | memoryview):
        return bytes(image)
    pillow = sys.modules.get("PIL.Image")
    if pillow is not None and isinstance(image, pillow.Image):
        return _encode_pillow(image)
    if hasattr(image, "__array__"):
        return _encode_array(image)
    raise UnreadableImage(
        f"An object of type {type(image).__name__} is no image. Give a path, bytes, a Pillow image or an array."
    )


def _read_file(path: Path) -> bytes:
    try:
        return read_regular(path, _MAX_FILE_BYTES)
    except UnfitFile as error:
        raise UnreadableImage(f"It is no image, as {error.strerror}. Give image files.") from error
    except (OSError, ValueError) as error:  # a path with a zero byte is a ValueError
        reason = error.strerror if isinstance(error, OSError) else error
        raise UnreadableImage(f"It cannot be read ({reason}). Check the path and its rights.") from error


def _encode_pillow(image: "Image") -> bytes:
    from PIL import ImageOps

    if image.mode in _MODES_WITHOUT_RANGE:
        raise UnreadableImage(f"The Pillow image has the mode {image.mode}, which has no white. Give an RGB image.")
    try:
        upright = ImageOps.exif_transpose(image)
        profile = upright.info.get("icc_profile")
        if upright.mode not in _MODES_OF_PNG:
            upright, profile = upright.convert("RGB"), None  # the profile describes other channels
        buffer = io.BytesIO()
        upright.save(buffer, "PNG", compress_level=1, icc_profile=profile)
    except (OSError, ValueError, SyntaxError) as error:
        raise UnreadableImage(
            f"The Pillow image cannot be written as PNG ({error}). Give an RGB image, or the bytes of its file."
        ) from error
    return buffer.getvalue()


def _encode_array(image: object) -> bytes:
    import numpy as np
    from PIL import Image

    array = np.asarray(image)
    is_rgb = array.ndim == _NUM_CHANNELS and array.shape[-1] == _NUM_CHANNELS and array.size > 0
    if array.dtype != np.uint8 or not is_rgb:
        raise UnreadableImage(
            f"The array has dtype {array.dtype} and shape {array.shape}. Give uint8 of shape (height, width, 3), RGB."
        )
    return _encode_pillow(Image.fromarray(array))
