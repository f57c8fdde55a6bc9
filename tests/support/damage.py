"""Random damage to small files of every format."""

import random

from PIL import ExifTags, Image
from support.drawing import draw_photograph, encode, srgb_profile
from support.handmade import png_chunk, run_length_bmp

from service.imaging.limits import ImageLimits

LIMITS = ImageLimits(max_image_bytes=200_000, max_image_pixels=250_000)
PICTURE = draw_photograph(1, 1, (48, 36))
FRAMES = {"save_all": True, "append_images": [draw_photograph(2, 2, (48, 36))]}
EXIF = Image.Exif()
EXIF[0x0112] = 6
EXIF.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.ExposureTime] = 0.01
PROFILE = srgb_profile()
FILES = [
    encode(PICTURE), encode(PICTURE, progressive=True), encode(PICTURE.convert("CMYK")), encode(PICTURE, exif=EXIF),
    encode(PICTURE.convert("L"), "PNG"), encode(PICTURE.convert("P"), "PNG"), encode(PICTURE.convert("RGBA"), "PNG"),
    encode(PICTURE, "PNG", **FRAMES), encode(PICTURE, "GIF", **FRAMES), encode(PICTURE, "WEBP"),
    encode(PICTURE.convert("RGBA"), "WEBP", lossless=True, **FRAMES), encode(PICTURE, "BMP"), run_length_bmp(40, 7),
    encode(PICTURE, "TIFF"), encode(PICTURE, "TIFF", compression="tiff_lzw"),
    encode(PICTURE, "TIFF", compression="jpeg"), encode(PICTURE, "TIFF", exif=EXIF), encode(PICTURE, "AVIF"),
    encode(PICTURE, "AVIF", exif=EXIF), encode(PICTURE, "PNG", icc_profile=PROFILE),
    encode(PICTURE, icc_profile=PROFILE),
]  # fmt: skip
TOKENS = [b"\0", b"\xff", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", bytes(8), b"\r\n", b"\n", b"--fuzz",
          b"\r\n--fuzz--", b"Content-Disposition: form-data;", b'name="file"', b'"', b";", b":", b"\xff\xda",
          png_chunk(b"tEXt", b"a\0b"), FILES[0][:30], b"x" * 5000]  # fmt: skip


def damaged(data: bytes, others: list[bytes], source: random.Random) -> bytes:
    """Flipped, overwritten, deleted, repeated, spliced or cut, up to eight times."""
    for _ in range(source.randint(1, 8)):
        at = source.randrange(len(data) + 1)
        if source.random() < 0.3:
            at = min(at, source.randrange(64))  # headers decide the most
        length = source.choice((1, 2, 4, 16, 256))
        piece = data[at : at + length]
        match source.randrange(6):
            case 0:
                data = data[:at] + bytes(byte ^ 1 << source.randrange(8) for byte in piece[:1]) + data[at + 1 :]
            case 1:
                token = source.choice(TOKENS)
                data = data[:at] + token + data[at + source.choice((0, len(token))) :]
            case 2:
                data = data[:at] + data[at + length :]
            case 3:
                data = data[:at] + piece * source.choice((2, 10, 100)) + data[at:]
            case 4:
                other = source.choice(others)
                data = data[:at] + other[source.randrange(len(other)) :]
            case 5:
                data = data[:at] + source.randbytes(length) + data[at + length :]
    return data[: LIMITS.max_image_bytes] or b"\0"
