"""Every row of the table in docs/reference/images.md, by its name: what each format and mode becomes."""

import io
import re
import struct
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageCms, features
from support.drawing import encode, profile_with_red_and_green_exchanged
from support.handmade import png, png_chunk, run_length_bmp
from support.memory import forget_peak, growth_bytes

from benchmarks.reliability.hostile_files import (
    chained_profile,
    profile_of,
    profile_of_colours,
    profile_of_names,
)
from service.imaging.decode import decode_image
from service.imaging.pixels import Pixels
from service.imaging.profiles import to_srgb

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "reference" / "images.md"
COLOURS = np.array([[(200, 30, 40), (40, 180, 60)], [(30, 60, 190), (250, 240, 90)]], np.uint8)
GREYS = np.array([[0, 255], [64, 160]], np.uint8)
ALPHAS = np.array([[255, 0], [128, 255]], np.uint8)


def patches(values: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Four flat squares of 16 pixels: whole JPEG blocks, so that every encoder keeps their colours."""
    return values.repeat(16, axis=0).repeat(16, axis=1)


RGB = Image.fromarray(patches(COLOURS))
GREY = Image.fromarray(patches(GREYS))
CMYK = RGB.convert("CMYK")
RGBA = Image.merge("RGBA", (*RGB.split(), Image.fromarray(patches(ALPHAS))))
GREY_ALPHA = Image.merge("LA", (GREY, Image.fromarray(patches(ALPHAS))))
BLACK_AND_WHITE = Image.fromarray(patches(GREYS) > 100)
GREY_16 = Image.fromarray(patches(GREYS).astype(np.uint16) * 256 + 255)
OTHER = Image.new("RGB", RGB.size, (9, 9, 9))
COLOUR_PIXELS = patches(COLOURS)
GREY_PIXELS = np.stack([patches(GREYS)] * 3, axis=-1)
BLACK_AND_WHITE_PIXELS = np.where(GREY_PIXELS > 100, 255, 0).astype(np.uint8)


def difference(pixels: Pixels, expected: NDArray[np.uint8], *, is_lossy: bool) -> int:
    """The largest anywhere; away from the seams of the patches if an encoder blurs them (halved chroma)."""
    differences = np.abs(pixels.astype(int) - expected)
    return int(differences.reshape(2, 16, 2, 16, 3)[:, 4:12, :, 4:12].max() if is_lossy else differences.max())


def on_white(values: NDArray[np.uint8]) -> NDArray[np.uint8]:
    alpha = patches(ALPHAS)[..., None] / 255
    return np.rint(values * alpha + 255 * (1 - alpha)).astype(np.uint8)


def ycck_jpeg() -> bytes:
    """Pillow writes CMYK untransformed; here Y, Cb, Cr of its CMY are stored, and the Adobe flag says so."""
    y, cb, cr = (
        band.point(lambda value: 255 - value) for band in Image.merge("RGB", CMYK.split()[:3]).convert("YCbCr").split()
    )
    jpeg = encode(Image.merge("CMYK", (y, cb, cr, CMYK.getchannel("K"))), quality=95, subsampling=0)
    flag = jpeg.index(b"Adobe") + 11
    return jpeg[:flag] + b"\x02" + jpeg[flag + 1 :]


def interlaced_png() -> bytes:
    """Adam7: seven passes over a coarse to fine grid."""
    passes = (
        (0, 0, 8, 8),
        (0, 4, 8, 8),
        (4, 0, 8, 4),
        (0, 2, 4, 4),
        (2, 0, 4, 2),
        (0, 1, 2, 2),
        (1, 0, 2, 1),
    )
    rows = [b"\0" + row.tobytes() for top, left, down, right in passes for row in COLOUR_PIXELS[top::down, left::right]]
    return png(32, 32, b"".join(rows), interlaced=True)


def png_16_bit() -> bytes:
    wide = COLOUR_PIXELS.astype(">u2") * 256 + 255  # the low byte is dropped, not rounded
    return png(32, 32, b"".join(b"\0" + row.tobytes() for row in wide.astype(">u2")), bit_depth=16)


def png_transparent_colour() -> bytes:
    key = png_chunk(b"tRNS", struct.pack(">HHH", *COLOURS[0, 0].tolist()))
    return png(32, 32, b"".join(b"\0" + row.tobytes() for row in COLOUR_PIXELS), before=key)


def palette(mode: str = "P") -> Image.Image:
    image = RGB.quantize(4)
    return image if mode == "P" else image.convert(mode)


def palette_png_with_transparency() -> bytes:
    image = palette()
    alphas = bytes(0 if image.getpixel((0, 0)) == index else 255 for index in range(4))
    assert len(set(alphas)) == 2
    return encode(image, "PNG", transparency=alphas)


def transparent_gif() -> bytes:
    image = palette()
    return encode(image, "GIF", transparency=image.getpixel((0, 0)))


def first_transparent() -> NDArray[np.uint8]:
    expected = COLOUR_PIXELS.copy()
    expected[:16, :16] = 255
    return expected


def associated_alpha_tiff() -> bytes:
    """Grey already multiplied by its alpha: entry 338 says 1 where Pillow writes 2."""
    grey = Image.fromarray(np.rint(patches(GREYS) * (patches(ALPHAS) / 255)).astype(np.uint8))
    data = encode(Image.merge("LA", (grey, Image.fromarray(patches(ALPHAS)))), "TIFF")
    entry = data.index(struct.pack("<HHI", 338, 3, 1)) + 8
    return data[:entry] + b"\x01\0" + data[entry + 2 :]


def animation(image_format: str, **options: object) -> bytes:
    # Copies, because Pillow leaves the settings of one format's encoder on the image for the next.
    return encode(RGB.copy(), image_format, save_all=True, append_images=[OTHER.copy()], **options)


def stretched(low: float, high: float, dtype: type) -> bytes:
    numbers = low + patches(GREYS).astype(np.float64) / 255 * (high - low)
    return encode(Image.fromarray(numbers.astype(dtype)), "TIFF")


ROWS: dict[str, tuple[Callable[[], bytes], NDArray[np.uint8], int]] = {  # file, expected pixels, tolerance
    "JPEG, colour": (lambda: encode(RGB, quality=95), COLOUR_PIXELS, 4),
    "JPEG, progressive": (lambda: encode(RGB, quality=95, progressive=True), COLOUR_PIXELS, 4),
    "JPEG, grey": (lambda: encode(GREY, quality=95), GREY_PIXELS, 4),
    "JPEG, CMYK": (lambda: encode(CMYK, quality=95, subsampling=0), COLOUR_PIXELS, 4),
    "JPEG, YCCK": (ycck_jpeg, COLOUR_PIXELS, 6),
    "MPO": (lambda: animation("MPO", quality=95), COLOUR_PIXELS, 4),
    "PNG, colour": (lambda: encode(RGB, "PNG"), COLOUR_PIXELS, 0),
    "PNG, 16-bit colour": (png_16_bit, COLOUR_PIXELS, 0),
    "PNG, grey": (lambda: encode(GREY, "PNG"), GREY_PIXELS, 0),
    "PNG, 16-bit grey": (lambda: encode(GREY_16, "PNG"), GREY_PIXELS, 0),
    "PNG, 1-bit": (lambda: encode(BLACK_AND_WHITE, "PNG"), BLACK_AND_WHITE_PIXELS, 0),
    "PNG, palette": (lambda: encode(palette(), "PNG"), COLOUR_PIXELS, 0),
    "PNG, palette with transparency": (palette_png_with_transparency, first_transparent(), 0),
    "PNG, transparent colour": (png_transparent_colour, first_transparent(), 0),
    "PNG, grey with alpha": (lambda: encode(GREY_ALPHA, "PNG"), on_white(GREY_PIXELS), 1),
    "PNG, colour with alpha": (lambda: encode(RGBA, "PNG"), on_white(COLOUR_PIXELS), 1),
    "PNG, interlaced": (interlaced_png, COLOUR_PIXELS, 0),
    "PNG, animated": (lambda: animation("PNG"), COLOUR_PIXELS, 0),
    "WebP, lossy": (lambda: encode(RGB, "WEBP", quality=95), COLOUR_PIXELS, 8),
    "WebP, lossless": (lambda: encode(RGB, "WEBP", lossless=True), COLOUR_PIXELS, 0),
    "WebP, with alpha": (lambda: encode(RGBA, "WEBP", lossless=True), on_white(COLOUR_PIXELS), 1),
    "WebP, animated": (lambda: animation("WEBP", lossless=True), COLOUR_PIXELS, 0),
    "GIF": (lambda: encode(palette(), "GIF"), COLOUR_PIXELS, 0),
    "GIF, with transparency": (transparent_gif, first_transparent(), 0),
    "GIF, animated": (lambda: animation("GIF"), COLOUR_PIXELS, 0),
    "BMP, colour": (lambda: encode(RGB, "BMP"), COLOUR_PIXELS, 0),
    "BMP, palette": (lambda: encode(palette(), "BMP"), COLOUR_PIXELS, 0),
    "BMP, run-length": (lambda: run_length_bmp(32, 77), np.full((32, 32, 3), 77, np.uint8), 0),
    "TIFF, colour": (lambda: encode(RGB, "TIFF", compression="tiff_lzw"), COLOUR_PIXELS, 0),
    "TIFF, colour with alpha": (lambda: encode(RGBA, "TIFF"), on_white(COLOUR_PIXELS), 1),
    "TIFF, associated alpha": (associated_alpha_tiff, on_white(GREY_PIXELS), 2),
    "TIFF, palette": (lambda: encode(palette(), "TIFF"), COLOUR_PIXELS, 0),
    "TIFF, CMYK": (lambda: encode(CMYK, "TIFF"), COLOUR_PIXELS, 1),
    "TIFF, YCbCr": (lambda: encode(RGB.convert("YCbCr"), "TIFF"), COLOUR_PIXELS, 2),
    "TIFF, CIELAB": (lambda: encode(RGB.convert("LAB"), "TIFF"), COLOUR_PIXELS, 5),
    "TIFF, fax": (lambda: encode(BLACK_AND_WHITE, "TIFF", compression="group4"), BLACK_AND_WHITE_PIXELS, 0),
    "TIFF, 16-bit grey": (lambda: encode(GREY_16, "TIFF"), GREY_PIXELS, 0),
    "TIFF, 32-bit grey": (lambda: stretched(-70_000, 2_000_000, np.int32), GREY_PIXELS, 1),
    "TIFF, float grey": (lambda: stretched(0.25, 0.5, np.float32), GREY_PIXELS, 1),
    "TIFF, pages": (lambda: animation("TIFF"), COLOUR_PIXELS, 0),
    "AVIF": (lambda: encode(RGB, "AVIF", quality=95), COLOUR_PIXELS, 8),
    "AVIF, with alpha": (lambda: encode(RGBA, "AVIF", quality=95), on_white(COLOUR_PIXELS), 12),
    "AVIF, sequence": (lambda: animation("AVIF", quality=95), COLOUR_PIXELS, 8),
}  # fmt: skip


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
def test_a_profile_that_says_it_is_larger_than_it_is_gets_no_memory(profile: bytes) -> None:
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


def test_a_profile_may_have_curves_and_a_matrix_and_no_table() -> None:
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


def test_numbers_that_are_none_are_black_and_infinity_is_white() -> None:
    numbers = np.array([[0.0, 1.0], [np.nan, np.inf]], np.float32)
    grey: Pixels = to_srgb(decode_image(encode(Image.fromarray(numbers), "TIFF")))[..., 0]
    assert grey.tolist() == [[0, 255], [0, 255]]


def test_a_constant_float_picture_is_black() -> None:
    assert not to_srgb(decode_image(encode(Image.fromarray(np.full((4, 4), 0.7, np.float32)), "TIFF"))).any()


def test_a_transparent_16_bit_grey_shows_white() -> None:
    rows = b"".join(b"\0" + struct.pack(">HH", 0x1234, 0x1235) for _ in range(2))
    data = png(2, 2, rows, bit_depth=16, colour_type=0, before=png_chunk(b"tRNS", struct.pack(">H", 0x1234)))
    assert to_srgb(decode_image(data))[0, :, 0].tolist() == [255, 0x12]


def test_the_test_pictures_are_what_their_names_say() -> None:
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
