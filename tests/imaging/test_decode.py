"""Any bytes give pixels or an ImageError; what the pixels are does not depend on how the file is turned or who asks."""

import io
import logging
import re
import struct
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image, ImageCms, ImageFile, features
from support.drawing import draw_photograph, encode
from support.handmade import jpeg_segment, png, png_chunk, with_segments

from service.errors import ImageBytesTooLarge, ImageError, ImageTooLarge, InvalidImage, MissingImage, OutOfMemory
from service.imaging.decode import decode_image, decode_square
from service.imaging.limits import ImageLimits, ResizeRule
from service.imaging.pixels import Pixels
from service.imaging.profiles import to_srgb
from service.imaging.resize import resize

PICTURE = draw_photograph(2, 3, (32, 24))
OTHER = draw_photograph(4, 1, (32, 24))
PIXELS = np.asarray(PICTURE)
HAS_AVIF = features.check("avif")
FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", *(("AVIF",) if HAS_AVIF else ()))


def one_of_each_format() -> dict[str, bytes]:
    files = {
        "JPEG": encode(PICTURE),
        "JPEG progressive": encode(PICTURE, progressive=True),
        "JPEG CMYK": encode(PICTURE.convert("CMYK")),
        "PNG": encode(PICTURE, "PNG"),
        "PNG palette": encode(PICTURE.quantize(16), "PNG", transparency=bytes(range(16))),
        "PNG animated": encode(PICTURE, "PNG", save_all=True, append_images=[OTHER]),
        "WebP": encode(PICTURE, "WEBP"),
        "WebP lossless": encode(PICTURE.convert("RGBA"), "WEBP", lossless=True),
        "WebP animated": encode(PICTURE, "WEBP", save_all=True, append_images=[OTHER]),
        "GIF": encode(PICTURE, "GIF"),
        "BMP": encode(PICTURE, "BMP"),
        "TIFF": encode(PICTURE.copy(), "TIFF"),
        "TIFF LZW": encode(PICTURE.copy(), "TIFF", compression="tiff_lzw"),
        "TIFF deflate": encode(PICTURE.copy(), "TIFF", compression="tiff_adobe_deflate"),
    }
    return files | ({"AVIF": encode(PICTURE, "AVIF")} if HAS_AVIF else {})


FILES = one_of_each_format()


def outcome(data: bytes) -> Pixels | ImageError:
    """What `decode_image` answers; any exception that is no ImageError is the test's failure."""
    try:
        pixels = decode_image(data, ImageLimits(max_image_pixels=1_000_000)).pixels
    except ImageError as error:
        return error
    assert pixels.dtype == np.uint8
    assert pixels.ndim == 3
    assert pixels.shape[2] == 3
    assert pixels.size > 0
    return pixels


# Limits


def test_no_bytes_are_a_missing_image() -> None:
    with pytest.raises(MissingImage, match="Send the whole image file"):
        decode_image(b"")


def test_the_byte_limit_is_the_largest_file_taken() -> None:
    data = FILES["JPEG"]
    assert decode_image(data, ImageLimits(max_image_bytes=len(data))).pixels.size
    with pytest.raises(ImageBytesTooLarge, match=rf"has {len(data):,} bytes\. Up to {len(data) - 1:,} are taken\."):
        decode_image(data, ImageLimits(max_image_bytes=len(data) - 1))


@pytest.mark.parametrize("name", FILES)
def test_the_pixel_limit_is_the_largest_image_taken(name: str) -> None:
    assert decode_image(FILES[name], ImageLimits(max_image_pixels=32 * 24)).pixels.shape == (24, 32, 3)
    with pytest.raises(ImageTooLarge, match=r"has 768 pixels to decode\. Up to 767 are taken\. Send a smaller copy"):
        decode_image(FILES[name], ImageLimits(max_image_pixels=32 * 24 - 1))


def test_pixels_are_told_in_millions() -> None:
    data = encode(Image.new("1", (9000, 9000)), "PNG")
    with pytest.raises(ImageTooLarge) as refusal:
        decode_image(data)
    assert str(refusal.value) == (
        "The image has 81 million pixels to decode. Up to 50 million are taken. Send a smaller copy."
    )


@pytest.mark.parametrize("size", [(1, 1), (1, 50_000), (50_000, 1), (2, 3)])
def test_tiny_and_extremely_long_images_are_taken(size: tuple[int, int]) -> None:
    pixels = decode_image(encode(Image.new("RGB", size, (9, 80, 200)), "PNG")).pixels
    assert pixels.shape == (size[1], size[0], 3)
    assert (pixels == (9, 80, 200)).all()
    assert (resize(pixels) == (9, 80, 200)).all()


# Orientation

STORED: dict[int, Callable[[NDArray[np.uint8]], NDArray[np.uint8]]] = {
    # TIFF 6.0, page 36: where the 0th row and the 0th column of what is stored are to be seen.
    1: lambda upright: upright,  # top, left
    2: lambda upright: upright[:, ::-1],  # top, right
    3: lambda upright: upright[::-1, ::-1],  # bottom, right
    4: lambda upright: upright[::-1],  # bottom, left
    5: lambda upright: upright.transpose(1, 0, 2),  # left, top
    6: lambda upright: upright[:, ::-1].transpose(1, 0, 2),  # right, top
    7: lambda upright: upright[::-1, ::-1].transpose(1, 0, 2),  # right, bottom
    8: lambda upright: upright[::-1].transpose(1, 0, 2),  # left, bottom
}


def stored(orientation: int) -> Image.Image:
    return Image.fromarray(np.ascontiguousarray(STORED[orientation](PIXELS)))


def exif(orientation: int) -> Image.Exif:
    note = Image.Exif()
    note[0x0112] = orientation
    return note


@pytest.mark.parametrize("orientation", STORED)
@pytest.mark.parametrize("image_format", FORMATS)
def test_all_eight_orientations_give_the_same_image(image_format: str, orientation: int) -> None:
    options = {"quality": 100, "lossless": True, "subsampling": "4:4:4"}
    data = encode(stored(orientation), image_format, exif=exif(orientation), **options)
    pixels = decode_image(data).pixels
    assert pixels.shape == PIXELS.shape
    assert np.abs(pixels.astype(int) - PIXELS).mean() <= (2 if image_format in ("JPEG", "AVIF") else 0)


def test_an_orientation_in_xmp_counts_without_exif() -> None:
    xmp = b'<x:xmpmeta><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
    assert np.array_equal(decode_image(encode(stored(6), "WEBP", lossless=True, xmp=xmp)).pixels, PIXELS)


@pytest.mark.parametrize("compression", ["raw", "tiff_lzw"])
def test_a_tiff_with_two_orientations_is_turned_once(compression: str) -> None:
    notes = {0x0112: 6, 700: b'<x:xmpmeta><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'}
    data = encode(stored(6), "TIFF", compression=compression, tiffinfo=notes)
    assert data.count(b"tiff:Orientation") == 1
    assert np.array_equal(decode_image(data).pixels, PIXELS)


@pytest.mark.parametrize(
    "note",
    [b"", b"MM", b"MM\0*\0\0\0\x08", b"MM\0*\xff\xff\xff\xff", b"II*\0\x08\0\0\0\xff\xff" + bytes(40), b"rubbish" * 9],
    ids=["empty", "cut in its head", "cut in its directory", "beyond its end", "too many entries", "rubbish"],
)
def test_a_broken_exif_note_does_not_spoil_the_image(note: bytes) -> None:
    jpeg = with_segments(FILES["JPEG"], jpeg_segment(0xE1, b"Exif\0\0" + note))
    assert np.array_equal(decode_image(jpeg).pixels, decode_image(FILES["JPEG"]).pixels)
    rows = b"".join(b"\0" + row.tobytes() for row in PIXELS)
    assert np.array_equal(decode_image(png(32, 24, rows, before=png_chunk(b"eXIf", note))).pixels, PIXELS)


@pytest.mark.parametrize(("num_bytes", "is_turned"), [(1024 * 1024 - 100, True), (2 * 1024 * 1024, False)])
def test_exif_of_more_than_a_mebibyte_is_not_read(num_bytes: int, is_turned: bool) -> None:
    """Pillow goes through it in Python."""
    data = encode(stored(6), "WEBP", lossless=True, exif=exif(6).tobytes() + bytes(num_bytes))
    assert np.array_equal(decode_image(data).pixels, PIXELS if is_turned else np.asarray(stored(6)))


@pytest.mark.parametrize("orientation", [0, 9, 65_535])
def test_an_orientation_that_does_not_exist_is_upright(orientation: int) -> None:
    note = b"MM\0*\0\0\0\x08\0\x01" + struct.pack(">HHIHH", 0x0112, 3, 1, orientation, 0) + bytes(4)
    data = with_segments(FILES["JPEG"], jpeg_segment(0xE1, b"Exif\0\0" + note))
    assert np.array_equal(decode_image(data).pixels, decode_image(FILES["JPEG"]).pixels)


# Animations


@pytest.mark.parametrize("image_format", ["GIF", "WEBP"])
def test_of_two_thousand_frames_the_first_is_taken(image_format: str) -> None:
    frames = [Image.new("RGB", (8, 8), (index % 256, index // 256, 99)) for index in range(2_000)]
    options = {"lossless": True, "method": 0} if image_format == "WEBP" else {}
    data = encode(Image.new("RGB", (8, 8), (200, 30, 40)), image_format, save_all=True, append_images=frames, **options)
    assert (decode_image(data).pixels == (200, 30, 40)).all()


def test_later_frames_of_a_gif_are_not_looked_at() -> None:
    data = encode(PICTURE, "GIF", save_all=True, append_images=[OTHER])
    alone = encode(PICTURE, "GIF")
    broken_behind = data[: len(alone) + 40] + b"\xff" * 500
    assert np.array_equal(decode_image(broken_behind).pixels, decode_image(data).pixels)


# Broken files


@pytest.mark.parametrize("name", FILES)
def test_a_file_cut_short_anywhere_is_an_error(name: str) -> None:
    """Every proper prefix; of a GIF the last two bytes (the marks that no more comes) stand behind its image."""
    data = FILES[name]
    whole = decode_image(data).pixels
    answered = [length for length in range(len(data)) if not isinstance(outcome(data[:length]), ImageError)]
    assert answered == ([len(data) - 2, len(data) - 1] if name == "GIF" else [])
    assert all(np.array_equal(decode_image(data[:length]).pixels, whole) for length in answered)


places = st.floats(0, 1, exclude_max=True)
edits = st.one_of(
    st.tuples(st.just("flip"), places, st.integers(0, 7)),
    st.tuples(st.just("write"), places, st.sampled_from([b"\0", b"\xff", b"\xff\xff\xff\xff", b"\x7f\xff", bytes(8)])),
    st.tuples(st.just("delete"), places, st.integers(1, 64)),
    st.tuples(st.just("insert"), places, st.binary(min_size=1, max_size=16)),
    st.tuples(st.just("splice"), places, st.sampled_from(sorted(FILES))),
    st.tuples(st.just("cut"), places, st.none()),
)


def edited(data: bytes, edit: tuple[str, float, object]) -> bytes:
    kind, place, what = edit
    at = int(place * len(data))
    match kind, what:
        case "flip", int(bit):
            return data[:at] + bytes(byte ^ 1 << bit for byte in data[at : at + 1]) + data[at + 1 :]
        case "write", bytes(new):
            return data[:at] + new + data[at + len(new) :]
        case "delete", int(length):
            return data[:at] + data[at + length :]
        case "insert", bytes(new):
            return data[:at] + new + data[at:]
        case "splice", str(name):
            return data[:at] + FILES[name][at:]
    return data[:at]


@settings(max_examples=1_500, deadline=None)
@given(name=st.sampled_from(sorted(FILES)), changes=st.lists(edits, min_size=1, max_size=6))
def test_a_damaged_file_gives_pixels_or_an_image_error(name: str, changes: list[tuple[str, float, object]]) -> None:
    data = FILES[name]
    for change in changes:
        data = edited(data, change)
    answer = outcome(data)
    if isinstance(answer, ImageError):
        assert_fit_for_people(str(answer))


@settings(max_examples=300, deadline=None)
@given(start=st.sampled_from([data[:length] for data in FILES.values() for length in (0, 4, 16)]), rest=st.binary())
def test_any_bytes_give_pixels_or_an_image_error(start: bytes, rest: bytes) -> None:
    answer = outcome(start + rest)
    if isinstance(answer, ImageError):
        assert_fit_for_people(str(answer))


def assert_fit_for_people(message: str) -> None:
    assert message.endswith(".")
    assert message.isascii()
    assert message.isprintable()
    assert not any(word in message for word in ("PIL", "Pillow", "libtiff", "/", "\\", "object at", "Error", "None"))
    assert re.search(r"\. (Send|Scale) ", message)
    assert ";" not in message


# The same answer, whoever else uses the process


@pytest.mark.parametrize("name", FILES)
def test_the_same_bytes_decode_alike_in_any_thread(name: str) -> None:
    alone = decode_image(FILES[name]).pixels
    with ThreadPoolExecutor(4) as pool:
        for decoded in pool.map(decode_image, [FILES[name]] * 12):
            assert np.array_equal(decoded.pixels, alone)


@pytest.mark.parametrize("name", FILES)
def test_the_square_equals_the_whole_image_s_square(name: str) -> None:
    rule = ResizeRule(20, 22)
    assert (decode_square(FILES[name], rule) == resize(decode_image(FILES[name]), rule)).all()


def test_pillow_settings_made_elsewhere_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    assert decode_image(FILES["PNG"]).pixels.shape == (24, 32, 3)
    for data in (FILES["TIFF"][:-100], FILES["BMP"][:-100], FILES["GIF"][:-100]):
        monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
        with pytest.raises(InvalidImage):
            decode_image(data)


WARNED_ABOUT = png(2, 2, b"\0" + bytes(6) + b"\0" + bytes(6), before=png_chunk(b"acTL", bytes(8)))


def test_warnings_of_pillow_do_not_leak(caplog: pytest.LogCaptureFixture) -> None:
    with warnings.catch_warnings(record=True) as seen, caplog.at_level(logging.DEBUG):
        warnings.simplefilter("error")
        assert decode_image(WARNED_ABOUT).pixels.shape == (2, 2, 3)
        warnings.simplefilter("always")
        assert decode_image(WARNED_ABOUT).pixels.shape == (2, 2, 3)
    assert not seen
    assert not caplog.records


def test_our_limit_may_exceed_pillow_s_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    assert decode_image(FILES["WebP"], ImageLimits(max_image_pixels=1_000)).pixels.size


# Real photographs


@pytest.mark.photographs
def test_real_photographs_are_all_whole_and_decode_as_everywhere(photographs: Path) -> None:
    paths = sorted(photographs.glob("*/*.jpg"))[::40]
    assert len(paths) > 50
    for path in paths:
        with Image.open(path) as image:
            decoded = decode_image(path.read_bytes())
            assert np.array_equal(decoded.pixels, np.asarray(image.convert("RGB"))), path.name
            assert decoded.profile == image.info.get("icc_profile")
            assert np.array_equal(to_srgb(decoded), in_srgb(image)), path.name


def in_srgb(image: Image.Image) -> Pixels:
    """By the imaging library, unless the profile is sRGB, or does not belong to an image in colour."""
    if "icc_profile" in image.info:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(image.info["icc_profile"]))
        name = profile.profile.profile_description or ""
        if profile.profile.xcolor_space == "RGB " and not name.startswith("sRGB"):
            srgb = ImageCms.createProfile("sRGB")
            return np.asarray(ImageCms.profileToProfile(image, profile, srgb, outputMode="RGB"))
    return np.asarray(image.convert("RGB"))


@pytest.mark.parametrize(
    "error", [MemoryError(), OSError("out of memory error when reading image file"), RuntimeError("std::bad_alloc")]
)
def test_want_of_memory_is_not_the_images_fault(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    monkeypatch.setattr(ImageFile.ImageFile, "load", Mock(side_effect=error))
    for decode in (decode_image, partial(decode_square, rule=ResizeRule(64, 80))):
        with pytest.raises(OutOfMemory, match="not at fault"):
            decode(encode(PICTURE))


def test_a_failure_without_memory_blames_no_image(monkeypatch: pytest.MonkeyPatch) -> None:
    """Some decoders say no more than that they failed."""
    monkeypatch.setattr(ImageFile.ImageFile, "load", Mock(side_effect=OSError("broken data stream")))
    with pytest.raises(InvalidImage):
        decode_image(encode(PICTURE))
    monkeypatch.setattr("service.imaging.decode.can_allocate", lambda num_bytes: num_bytes < 32 * 24 * 17)
    with pytest.raises(OutOfMemory):
        decode_image(encode(PICTURE))


def test_want_of_memory_turns_no_image_wrongly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image.Image, "getexif", Mock(side_effect=MemoryError))
    with pytest.raises(OutOfMemory):
        decode_image(encode(PICTURE, "PNG"))
