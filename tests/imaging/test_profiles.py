"""When colours are converted, what is kept for the next image, and that the order changes next to nothing."""

import io
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
from PIL import Image, ImageCms, TiffImagePlugin
from support.drawing import draw_photograph, encode, profile_with_red_and_green_exchanged
from support.hostile_files import chained_profile
from support.icc import cmyk_profile, grey_profile, matrix_profile, table_profile

from service.errors import OutOfMemory
from service.imaging.decode import decode_image, decode_square
from service.imaging.limits import ResizeRule
from service.imaging.pixels import Decoded, Pixels
from service.imaging.profiles import ConversionCache, find_conversion, to_srgb
from service.imaging.resize import resize, resize_shorter_side

SRGB = ImageCms.createProfile("sRGB")
PHOTO = draw_photograph(2, 3)


def converted(image: Image.Image, profile: bytes) -> Image.Image:
    """As the imaging library does it, with everything made anew."""
    opened = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    result = ImageCms.profileToProfile(image, opened, SRGB, outputMode="RGB")
    assert result is not None
    return result


def converted_pixels(image: Image.Image, profile: bytes) -> Pixels:
    return np.asarray(converted(image, profile))


LAST: dict[str, tuple[str, Callable[[], bytes]]] = {
    "gamma 2.2": ("RGB", lambda: matrix_profile(2.2)),
    "gamma 1.8": ("RGB", lambda: matrix_profile(1.8)),
    "sRGB's curve": ("RGB", profile_with_red_and_green_exchanged),
    "grey, gamma 2.2": ("L", lambda: grey_profile(2.2)),
}
FIRST: dict[str, tuple[str, Callable[[], bytes]]] = {
    "linear": ("RGB", lambda: matrix_profile(None)),
    "gamma 1.0": ("RGB", lambda: matrix_profile(1.0)),
    "gamma 1.5": ("RGB", lambda: matrix_profile(1.5)),
    "table": ("RGB", table_profile),
    "ink": ("CMYK", cmyk_profile),
    "grey, linear": ("L", lambda: grey_profile(None)),
}


@pytest.mark.parametrize("name", LAST)
def test_a_matrix_profile_is_applied_after_the_resize(name: str) -> None:
    mode, make = LAST[name]
    image, profile = PHOTO.convert(mode), make()
    decoded = Decoded(image, profile)
    for scale in (resize, lambda image: resize_shorter_side(image, 100)):
        scaled = scale(Decoded(image))
        as_stored = Image.fromarray(scaled).convert(mode)
        expected = converted_pixels(as_stored, profile)
        assert (scale(decoded) == expected).all()
        assert (expected != scaled).any()


@pytest.mark.parametrize("name", FIRST)
def test_another_profile_is_applied_before_the_resize(name: str) -> None:
    mode, make = FIRST[name]
    image, profile = PHOTO.convert(mode), make()
    first = converted_pixels(image, profile)
    assert (resize(Decoded(image, profile)) == resize(first)).all()
    assert (resize_shorter_side(Decoded(image, profile), 100) == resize_shorter_side(first, 100)).all()
    assert (first != np.asarray(image.convert("RGB"))).any()


@pytest.mark.parametrize("name", LAST | FIRST)
def test_the_whole_image_is_converted_like_the_library(name: str) -> None:
    mode, make = (LAST | FIRST)[name]
    image, profile = PHOTO.convert(mode), make()
    assert (to_srgb(Decoded(image, profile)) == converted_pixels(image, profile)).all()


@pytest.mark.parametrize("name", LAST)
def test_the_order_of_conversion_makes_little_difference(name: str) -> None:
    """A drawing is harder than a photograph: noise at each pixel, edges between the purest colours."""
    mode, make = LAST[name]
    decoded = Decoded(PHOTO.convert(mode), make())
    assert np.abs(resize(decoded).astype(int) - resize(to_srgb(decoded))).mean() < 1


@pytest.mark.parametrize("name", LAST | FIRST)
@pytest.mark.parametrize("orientation", [1, 6])
def test_pixels_are_those_without_the_profile(name: str, orientation: int) -> None:
    mode, make = (LAST | FIRST)[name]
    exif = Image.Exif()
    exif[0x0112] = orientation
    plain, tagged = (
        decode_image(encode(PHOTO.convert(mode), "JPEG", quality=90, exif=exif, **options))
        for options in ({}, {"icc_profile": make()})
    )
    assert (tagged.pixels == plain.pixels).all()
    assert tagged.profile == make()
    assert plain.profile is None


@pytest.mark.parametrize("name", LAST | FIRST)
def test_a_file_s_square_equals_its_decoded_image_s(name: str) -> None:
    mode, make = (LAST | FIRST)[name]
    data = encode(PHOTO.convert(mode), "JPEG", quality=90, icc_profile=make())
    with ThreadPoolExecutor(4) as pool:
        for square in pool.map(lambda _: decode_square(data, ResizeRule()), range(8)):
            assert (square == resize(decode_image(data))).all()


def test_a_table_that_keeps_greys_is_a_table() -> None:
    greys = Image.fromarray(np.arange(256, dtype=np.uint8)[np.newaxis]).convert("RGB")
    shifts = to_srgb(Decoded(greys, table_profile())).astype(int) - np.asarray(greys)
    assert np.abs(shifts).max() < 24
    conversion = find_conversion(table_profile(), greys.mode)
    assert conversion is not None
    assert not conversion.is_last


def test_ink_without_a_profile_becomes_rgb_before_the_resize() -> None:
    ink = PHOTO.convert("CMYK")
    assert (resize(Decoded(ink)) == resize(np.asarray(ink.convert("RGB")))).all()


def test_a_large_jpeg_is_shrunk_before_its_conversion() -> None:
    data = encode(PHOTO.resize((2048, 1536)).convert("CMYK"), "JPEG", icc_profile=cmyk_profile())
    decoded = decode_image(data)
    assert decoded.image.size == (1024, 768)
    assert (resize(decoded) == resize(converted_pixels(decoded.image, cmyk_profile()))).all()


def test_the_conversion_of_a_profile_seen_before_is_kept() -> None:
    conversion, again = (find_conversion(matrix_profile(2.3), PHOTO.mode) for _ in range(2))
    assert conversion is not None
    assert again is conversion


def test_a_profile_is_kept_for_each_mode() -> None:
    cache, profile = ConversionCache(10, 10), matrix_profile(2.2)
    assert cache.find(profile, "L") is None
    assert cache.find(profile, "RGB") is not None
    assert cache.find(profile, "CMYK") is None


def test_of_too_many_profiles_those_used_last_are_kept() -> None:
    cache = ConversionCache(max_entries=3, max_conversions=10)
    profiles = [matrix_profile(1 + number / 10) for number in range(4)]
    conversions = [cache.find(profile, "RGB") for profile in profiles[:3]]
    assert cache.find(profiles[0], "RGB") is conversions[0]
    cache.find(profiles[3], "RGB")
    assert cache.find(profiles[0], "RGB") is conversions[0]
    assert cache.find(profiles[2], "RGB") is conversions[2]
    assert cache.find(profiles[1], "RGB") is not conversions[1]


def test_conversions_are_kept_up_to_their_number() -> None:
    cache = ConversionCache(max_entries=100, max_conversions=2)
    profiles = [matrix_profile(1 + number / 10) for number in range(3)]
    first, second = (cache.find(profile, "RGB") for profile in profiles[:2])
    assert first is not None
    assert [cache.find(profile, "RGB") for profile in profiles[:2]] == [first, second]
    cache.find(profiles[2], "RGB")
    assert cache.find(profiles[1], "RGB") is second
    assert cache.find(profiles[0], "RGB") is not first


def test_profiles_that_change_nothing_are_no_conversions(monkeypatch: pytest.MonkeyPatch) -> None:
    cache = ConversionCache(max_entries=10, max_conversions=0)
    profiles = (ImageCms.ImageCmsProfile(SRGB).tobytes(), b"rubbish", chained_profile(2))
    assert [cache.find(profile, "RGB") for profile in profiles] == [None] * 3
    monkeypatch.setattr(ImageCms, "ImageCmsProfile", None)
    assert [cache.find(profile, "RGB") for profile in profiles] == [None] * 3


def test_a_failed_conversion_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """For want of memory, for example, which is said as if the profile were broken."""
    cache = ConversionCache(10, 10)
    with monkeypatch.context() as patch:
        patch.setattr(ImageCms, "buildTransform", Mock(side_effect=ImageCms.PyCMSError("no memory")))
        assert cache.find(matrix_profile(2.2), "RGB") is None
    assert cache.find(matrix_profile(2.2), "RGB") is not None


@pytest.mark.parametrize("text", ["out of memory", "cannot build transform"])
def test_colours_are_not_left_unconverted_for_want_of_memory(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """The library says no more than that it could not; then it is asked whether there is memory."""
    monkeypatch.setattr(ImageCms, "buildTransform", Mock(side_effect=ImageCms.PyCMSError(text)))
    monkeypatch.setattr("service.imaging.profiles.can_allocate", lambda _: text == "out of memory")
    with pytest.raises(OutOfMemory):
        ConversionCache(10, 10).find(matrix_profile(2.2), "RGB")


@pytest.mark.parametrize("kind", [2, 3, 5, 11, 12])
def test_a_tiff_profile_of_text_or_numbers_is_ignored(kind: int) -> None:
    """ASCII, SHORT, RATIONAL, FLOAT, DOUBLE."""
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags.tagtype[34675] = kind
    tags[34675] = "text" if kind == 2 else 7
    data = encode(PHOTO, "TIFF", tiffinfo=tags)
    with Image.open(io.BytesIO(data)) as opened:
        assert not isinstance(opened.info["icc_profile"], bytes)
    decoded = decode_image(data)
    assert decoded.profile is None
    assert (decode_square(data, ResizeRule()) == resize(np.asarray(PHOTO))).all()


@pytest.mark.photographs
def test_real_photographs_differ_little_from_those_converted_first(photographs: Path) -> None:
    differences = []
    for path in sorted(photographs.glob("*/*.jpg"))[::5]:
        decoded = decode_image(path.read_bytes())
        if find_conversion(decoded.profile, decoded.image.mode) is not None:
            differences.append(np.abs(resize(decoded).astype(int) - resize(to_srgb(decoded))).mean())
    assert len(differences) > 50
    assert np.mean(differences) < 0.5


def test_a_process_keeps_32_conversions() -> None:
    profiles = [matrix_profile(1.5 + number / 50) for number in range(33)]
    first, second = (find_conversion(profile, "RGB") for profile in profiles[:2])
    for profile in profiles[2:32]:
        find_conversion(profile, "RGB")
    assert find_conversion(profiles[0], "RGB") is first
    find_conversion(profiles[32], "RGB")
    assert find_conversion(profiles[0], "RGB") is first
    assert find_conversion(profiles[1], "RGB") is not second


def test_a_process_remembers_256_profiles() -> None:
    profile = matrix_profile(2.1)
    conversion = find_conversion(profile, "RGB")
    for number in range(255):
        find_conversion(b"rubbish %d" % number, "RGB")
    assert find_conversion(profile, "RGB") is conversion
    for number in range(256):
        find_conversion(b"other rubbish %d" % number, "RGB")
    assert find_conversion(profile, "RGB") is not conversion
