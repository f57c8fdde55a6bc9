"""Files of every format and mode, each with the pixels that it stands for."""

import struct
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from support.drawing import encode
from support.handmade import png, png_chunk, run_length_bmp

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
