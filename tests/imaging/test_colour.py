"""Every row of the table in docs/reference/images.md, by its name: what each format and mode becomes."""

import io
import re
import struct
import sys
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageCms, features
from support.drawing import encode, profile_with_red_and_green_exchanged
from support.formats_and_modes import CMYK, COLOUR_PIXELS, GREY, RGB, ROWS, palette
from support.handmade import png, png_chunk
from support.hostile_files import (
    chained_profile,
    profile_of,
    profile_of_colours,
    profile_of_names,
)
from support.memory import forget_peak, growth_bytes

from service.imaging.decode import decode_image
from service.imaging.pixels import Pixels
from service.imaging.profiles import to_srgb

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "reference" / "images.md"


def difference(pixels: Pixels, expected: NDArray[np.uint8], *, is_lossy: bool) -> int:
    """The largest anywhere; away from the seams of the patches if an encoder blurs them (halved chroma)."""
    differences = np.abs(pixels.astype(int) - expected)
    return int(differences.reshape(2, 16, 2, 16, 3)[:, 4:12, :, 4:12].max() if is_lossy else differences.max())


@pytest.mark.parametrize("row", ROWS)
def test_each_format_and_mode_becomes_what_the_table_says(row: str) -> None:
    if row.startswith("AVIF") and not features.check("avif"):
        pytest.skip("this Pillow was built without AVIF")
    make, expected, tolerance = ROWS[row]
    pixels = to_srgb(decode_image(make()))
    assert pixels.dtype == np.uint8
    assert pixels.shape == expected.shape
    assert difference(pixels, expected, is_lossy=tolerance > 2) <= tolerance


def test_the_table_in_the_documents_has_exactly_these_rows() -> None:
    table = DOCUMENT.read_text().partition("|---|---|\n")[2].partition("\n\n")[0]
    assert re.findall(r"^\| (.*?) \|", table, re.MULTILINE) == list(ROWS)


EXCHANGED = COLOUR_PIXELS[..., [1, 0, 2]]


@pytest.mark.parametrize(
    ("image_format", "options"),
    [
        ("JPEG", {"quality": 95}),
        ("PNG", {}),
        ("WEBP", {"lossless": True}),
        ("TIFF", {}),
        ("AVIF", {"quality": 95}),
    ],
)
def test_a_colour_profile_is_applied(image_format: str, options: dict[str, object]) -> None:
    pixels = to_srgb(
        decode_image(encode(RGB, image_format, icc_profile=profile_with_red_and_green_exchanged(), **options))
    )
    assert difference(pixels, EXCHANGED, is_lossy=True) <= 8


def test_a_colour_profile_is_applied_to_a_palette_too() -> None:
    pixels = to_srgb(decode_image(encode(palette(), "PNG", icc_profile=profile_with_red_and_green_exchanged())))
    assert difference(pixels, EXCHANGED, is_lossy=False) <= 2


def test_a_profile_of_srgb_changes_nothing() -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    assert (to_srgb(decode_image(encode(RGB, "PNG", icc_profile=profile))) == COLOUR_PIXELS).all()


GIANT_PROFILE = profile_with_red_and_green_exchanged() + bytes(5 * 1024 * 1024)


def test_a_profile_that_chains_its_computations_is_ignored() -> None:
    """Each link is eight bytes, all the same; a minute of work is half a kilobyte when packed."""
    profile = chained_profile(2)
    opened = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    applied = ImageCms.profileToProfile(RGB, opened, ImageCms.createProfile("sRGB"), outputMode="RGB")
    assert (np.asarray(applied) != np.asarray(RGB)).any(), "it would not be seen if it were applied"
    assert same_as_untagged(RGB, profile)


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
@pytest.mark.parametrize(
    "profile",
    [profile_of_names(40_000_000), profile_of_colours(38), profile_of_colours(38, b"mAB ")],
    ids=["names", "lut16Type", "lutAToBType"],
)
def test_an_overstated_profile_gets_no_memory(profile: bytes) -> None:
    if not forget_peak():
        pytest.skip("the peak of this process cannot be measured here: /proc/self/clear_refs is not writable")
    assert growth_bytes(lambda: try_profile(profile)) > 300_000_000, "it would not be seen if it were read"
    image = encode(RGB, "TIFF", icc_profile=profile)
    assert growth_bytes(lambda: to_srgb(decode_image(image))) < 20_000_000
    assert same_as_untagged(RGB, profile)


def profile_without_table() -> bytes:
    """Straight curves and a matrix (lutAToBType)."""
    curves = (b"curv" + bytes(8)) * 3
    matrix = struct.pack(">12i", 28578, 25241, 9376, 14581, 46981, 3974, 912, 6362, 46799, 0, 0, 0)
    places = struct.pack(">5I", 32, 32 + len(curves), 32 + len(curves) + len(matrix), 0, 0)
    return profile_of({b"A2B0": b"mAB " + bytes(4) + bytes((3, 3, 0, 0)) + places + curves + matrix + curves})


def test_a_profile_may_have_curves_and_no_table() -> None:
    profile = profile_without_table()
    opened = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    applied = ImageCms.profileToProfile(RGB, opened, ImageCms.createProfile("sRGB"), outputMode="RGB")
    pixels = to_srgb(decode_image(encode(RGB, "TIFF", icc_profile=profile)))
    assert (pixels == np.asarray(applied)).all()
    assert (pixels != np.asarray(RGB)).any()


def try_profile(profile: bytes) -> None:
    opened = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    opened.profile.profile_description  # noqa: B018 - reading it is what takes the memory
    with suppress(ImageCms.PyCMSError):
        ImageCms.profileToProfile(RGB, opened, ImageCms.createProfile("sRGB"), outputMode="RGB")


def same_as_untagged(image: Image.Image, profile: bytes) -> bool:
    tagged, untagged = (
        to_srgb(decode_image(encode(image, "TIFF", icc_profile=profile))),
        to_srgb(decode_image(encode(image, "TIFF"))),
    )
    return bool((tagged == untagged).all())


@pytest.mark.parametrize("image", [RGB, GREY, CMYK], ids=lambda image: image.mode)
@pytest.mark.parametrize(
    "profile",
    [b"\0", b"no profile at all" * 20, profile_with_red_and_green_exchanged()[:300], GIANT_PROFILE],
    ids=["a byte", "text", "cut", "giant"],
)
def test_a_broken_or_giant_profile_is_ignored(image: Image.Image, profile: bytes) -> None:
    assert same_as_untagged(image, profile)


@pytest.mark.parametrize("image", [GREY, CMYK], ids=lambda image: image.mode)
def test_a_profile_for_another_colour_space_is_ignored(image: Image.Image) -> None:
    assert same_as_untagged(image, profile_with_red_and_green_exchanged())


def test_nan_is_black_and_infinity_white() -> None:
    numbers = np.array([[0.0, 1.0], [np.nan, np.inf]], np.float32)
    grey: Pixels = to_srgb(decode_image(encode(Image.fromarray(numbers), "TIFF")))[..., 0]
    assert grey.tolist() == [[0, 255], [0, 255]]


def test_a_constant_float_image_is_black() -> None:
    assert not to_srgb(decode_image(encode(Image.fromarray(np.full((4, 4), 0.7, np.float32)), "TIFF"))).any()


def test_a_transparent_16_bit_grey_shows_white() -> None:
    rows = b"".join(b"\0" + struct.pack(">HH", 0x1234, 0x1235) for _ in range(2))
    data = png(2, 2, rows, bit_depth=16, colour_type=0, before=png_chunk(b"tRNS", struct.pack(">H", 0x1234)))
    assert to_srgb(decode_image(data))[0, :, 0].tolist() == [255, 0x12]


def test_the_drawn_files_are_what_their_names_say() -> None:
    modes = {
        "JPEG, CMYK": "CMYK",
        "JPEG, YCCK": "CMYK",
        "PNG, 16-bit grey": "I;16",
        "PNG, 1-bit": "1",
        "PNG, palette": "P",
        "PNG, grey with alpha": "LA",
        "TIFF, associated alpha": "La",
        "TIFF, YCbCr": "YCbCr",
        "TIFF, CIELAB": "LAB",
        "TIFF, 32-bit grey": "I",
        "TIFF, float grey": "F",
    }
    assert {row: Image.open(io.BytesIO(ROWS[row][0]())).mode for row in modes} == modes
