import io
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import REPOSITORY
from PIL import Image
from support.drawing import draw_photograph, encode, srgb_profile

from service.client.images import encode_image
from service.errors import UnreadableImage

PIXELS = np.asarray(draw_photograph(0, seed=1))


def decode(data: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(data))
    assert image.format == "PNG"
    return image


def test_files_and_bytes_stay_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"photograph")
    for image in (tmp_path / "a.jpg", str(tmp_path / "a.jpg"), b"photograph", bytearray(b"photograph")):
        assert encode_image(image) == b"photograph"
    assert encode_image(memoryview(b"photograph")) == b"photograph"


def test_files_out_of_bounds_are_refused(tmp_path: Path) -> None:
    """A file of terabytes of zeros would take all memory. A device has no end."""
    (tmp_path / "huge.jpg").touch()
    os.truncate(tmp_path / "huge.jpg", 2**42)
    (tmp_path / "device.jpg").symlink_to("/dev/full")
    for path, said in (
        (tmp_path / "huge.jpg", "more than 1,073,741,824 bytes"),
        (tmp_path / "device.jpg", "no regular file"),
        (tmp_path, "no regular file"),
        (tmp_path / "missing.jpg", r"cannot be read \(No such file"),
        (tmp_path / "zero\0.jpg", "cannot be read"),
    ):
        with pytest.raises(UnreadableImage, match=said):
            encode_image(path)


@pytest.mark.parametrize("pixels", [PIXELS, PIXELS[::-1, ::2], np.asfortranarray(PIXELS)])
def test_an_array_is_sent_without_loss(pixels: np.ndarray) -> None:
    np.testing.assert_array_equal(np.asarray(decode(encode_image(pixels))), pixels)


@pytest.mark.parametrize("pixels", [PIXELS / 255, PIXELS[:, :, 0], PIXELS[None], PIXELS[:0], PIXELS[..., :2]])
def test_other_arrays_are_refused(pixels: np.ndarray) -> None:
    with pytest.raises(UnreadableImage, match=r"Give uint8 of shape \(height, width, 3\), RGB"):
        encode_image(pixels)


def test_a_pillow_image_is_sent_upright() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter
    lying = Image.open(io.BytesIO(encode(draw_photograph(0, seed=1), "PNG", exif=exif, icc_profile=srgb_profile())))
    sent = decode(encode_image(lying))
    np.testing.assert_array_equal(np.asarray(sent), np.rot90(PIXELS, -1))
    assert not sent.getexif()
    assert sent.info["icc_profile"] == srgb_profile()


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16", "CMYK", "YCbCr", "HSV"])
def test_pillow_images_of_any_colours_are_sent(mode: str) -> None:
    source = draw_photograph(0, seed=1)
    image = Image.new(mode, source.size) if mode == "I;16" else source.convert(mode)
    image.info["icc_profile"] = srgb_profile()
    sent = decode(encode_image(image))
    assert sent.size == image.size
    assert ("icc_profile" in sent.info) == (mode not in ("CMYK", "YCbCr", "HSV")), "it describes these channels only"


@pytest.mark.parametrize("mode", ["F", "I"])
def test_pillow_images_without_a_white_are_refused(mode: str) -> None:
    with pytest.raises(UnreadableImage, match="Give an RGB image"):
        encode_image(Image.new(mode, (8, 8)))


def test_a_truncated_pillow_image_is_refused() -> None:
    data = encode(draw_photograph(0, seed=1))
    with pytest.raises(UnreadableImage, match="cannot be written as PNG"):
        encode_image(Image.open(io.BytesIO(data[: len(data) // 2])))


@pytest.mark.parametrize("thing", [None, 3, ["a.jpg"]])
def test_other_objects_are_refused_by_their_type(thing: object) -> None:
    with pytest.raises(UnreadableImage, match=f"type {type(thing).__name__} is no image"):
        encode_image(thing)  # type: ignore[arg-type]


def test_importing_the_client_brings_no_numpy_or_pillow() -> None:
    program = "import sys, service.client; print(*{'numpy', 'PIL', 'fastapi', 'pydantic'} & set(sys.modules))"
    process = subprocess.run(
        [sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    assert process.stdout.strip() == ""
