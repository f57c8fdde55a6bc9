"""HEIC photographs, which are read where the optional library pi-heif is installed.

Damaged files crash that library. So it decodes in a process of its own: that of the service, or one for each image.
"""

import io
import os
import struct
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

from PIL import Image

from service.errors import InvalidImage
from service.imaging.limits import PIXEL_BYTES
from service.machine import data_bytes

FORMAT = "HEIF"
"""Pillow's name of the format."""

BRANDS = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1"})
"""Brands of such files. The last two are of AVIF, too."""

_MODES = ("L", "LA", "RGB", "RGBA")
_HEADER = struct.Struct("<4Q")  # width, height, place of the mode, bytes of the profile. Then come profile and pixels
_TIMEOUT_S = 60.0
_MARGIN_BYTES = 64 * 1024 * 1024  # that the process may take beside pixels and file


def can_read_heif() -> bool:
    """Return whether the library is installed. Nothing is imported."""
    return find_spec("pi_heif") is not None


def load_heif() -> None:
    """Make Pillow read the format in this process, with one thread an image. A second call changes nothing.

    Raises `ImportError` without the library.
    """
    from pi_heif import register_heif_opener  # here, as it may be missing, and takes 30 ms

    register_heif_opener(thumbnails=False, depth_images=False, aux_images=False, decode_threads=1)


def decode_apart(data: bytes, max_pixels: int, timeout_s: float = _TIMEOUT_S) -> tuple[int, Image.Image | None]:
    """Decode a photograph in a new process, which takes 0.2 s to start. On Linux its memory is bounded.

    Returns:
        Width x height, and the image upright, in mode L, LA, RGB or RGBA, with `icc_profile` in its `info` if it has
        one. An image of more than `max_pixels` is not decoded, and None.

    Raises:
        InvalidImage: The file crashes the library, or takes longer than `timeout_s`.
        ValueError, LookupError, struct.error: The library cannot read it, or the answer has another form.
    """
    paths = os.pathsep.join(path or str(Path.cwd()) for path in sys.path)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("FLOWERS_")}  # no keys
    try:
        ended = subprocess.run(  # noqa: S603 - our own interpreter, our own program
            [sys.executable, "-P", "-m", "service.imaging.heif", str(max_pixels)], input=data, stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL, timeout=timeout_s, check=False, env={**environment, "PYTHONPATH": paths},
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        raise InvalidImage("The image takes too long to decode. Send a smaller copy, or save it as JPEG.") from error
    if ended.returncode < 0:
        raise InvalidImage("The image crashes its decoder. Send a smaller copy, or save it as JPEG.")
    width, height, place, profile_bytes = _HEADER.unpack_from(ended.stdout)
    if width * height > max_pixels:
        return width * height, None
    body = memoryview(ended.stdout)[_HEADER.size :]
    image = Image.frombytes(_MODES[place], (width, height), body[profile_bytes:])  # raises for another length
    if profile_bytes:
        image.info["icc_profile"] = bytes(body[:profile_bytes])
    return width * height, image


def main() -> None:
    """Decode the file on standard input. The answer goes to standard output. The argument is the limit of pixels."""
    data, max_pixels = sys.stdin.buffer.read(), int(sys.argv[1])
    load_heif()
    if sys.platform == "linux":
        import resource  # here, as Windows has none

        most_bytes = data_bytes() + _MARGIN_BYTES + PIXEL_BYTES * max_pixels
        resource.setrlimit(resource.RLIMIT_DATA, (most_bytes, most_bytes))
    with Image.open(io.BytesIO(data), formats=(FORMAT,)) as image:
        if image.width * image.height > max_pixels:
            sys.stdout.buffer.write(_HEADER.pack(image.width, image.height, 0, 0))
            return
        image.load()
        profile = image.info.get("icc_profile") or b""
        header = _HEADER.pack(image.width, image.height, _MODES.index(image.mode), len(profile))
        for part in (header, profile, image.tobytes()):
            sys.stdout.buffer.write(part)


if __name__ == "__main__":
    main()
