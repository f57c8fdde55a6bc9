"""Photographs to send as multipart bodies, or a drawn flower."""

import io
import math
import uuid
from pathlib import Path

from PIL import Image, ImageDraw

from service.errors import InvalidParameter

_NUM_PETALS = 12
_MAX_PHOTOGRAPHS = 64  # of a folder, evenly picked. Each is held in memory.


def draw_flower() -> bytes:
    """Return a daisy on grass as JPEG, about as large as a photograph of 500 x 333 pixels."""
    width, height = 500, 333
    noise = Image.effect_noise((width, height), 60)
    image = Image.merge("RGB", (noise.point(lambda grey: grey // 3), noise, noise.point(lambda grey: grey // 4)))
    draw = ImageDraw.Draw(image)
    radius = min(width, height) / 3
    for petal in range(_NUM_PETALS):
        angle = 2 * math.pi * petal / _NUM_PETALS
        x, y = width / 2 + radius * math.cos(angle) * 0.6, height / 2 + radius * math.sin(angle) * 0.6
        draw.circle((x, y), radius / 3, fill=(250, 250, 245))
    draw.circle((width / 2, height / 2), radius / 3, fill=(240, 200, 20))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=75)
    return buffer.getvalue()


def read_photographs(path: Path | None, suffixes: tuple[str, ...]) -> list[bytes]:
    """Return a file, or up to 64 files below a folder with these suffixes, or without a path the drawn flower.

    Raises:
        InvalidParameter: The folder holds no image, or a file cannot be read.
    """
    if path is None:
        return [draw_flower()]
    files = [path]
    if path.is_dir():
        files = [file for file in sorted(path.rglob("*")) if file.suffix.lower() in suffixes]
        if not files:
            raise InvalidParameter(f"--image is {path}. It holds no image. Name a file, or a folder of images.")
        files = files[:: math.ceil(len(files) / _MAX_PHOTOGRAPHS)]
    try:
        return [file.read_bytes() for file in files]
    except OSError as error:
        raise InvalidParameter(f"--image is {path}. It cannot be read ({error.strerror}). Name another.") from error


def as_form(photograph: bytes, field: str = "file") -> tuple[bytes, str]:
    """Return a multipart body with one file, and its content type."""
    boundary = uuid.uuid4().hex
    head = f'--{boundary}\r\nContent-Disposition: form-data; name="{field}"; filename="image"\r\n\r\n'
    return head.encode() + photograph + f"\r\n--{boundary}--\r\n".encode(), f"multipart/form-data; boundary={boundary}"
