"""When colours are converted, what is kept for the next image, and that the order changes next to nothing."""

import io
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from drawing import draw_photograph, encode, profile_with_red_and_green_exchanged
from icc import cmyk_profile, grey_profile, matrix_profile, table_profile
from PIL import Image, ImageCms

from service.imaging.decode import decode_image, decode_square
from service.imaging.pixels import Decoded, Pixels, ResizeRule
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
    "table": ("RGB", table_profile),
    "ink": ("CMYK", cmyk_profile),
    "grey, linear": ("L", lambda: grey_profile(None)),
}


@pytest.mark.parametrize("name", LAST)
def test_a_matrix_profile_is_applied_after_the_resize(name: str) -> None:
    mode, make = LAST[name]
    image, profile = PHOTO.convert(mode), make()
    decoded = Decoded(image, profile)
    for scale in (resize, lambda picture: resize_shorter_side(picture, 100)):
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
def test_the_whole_image_is_converted_as_the_library_does_it(name: str) -> None:
    mode, make = (LAST | FIRST)[name]
    image, profile = PHOTO.convert(mode), make()
    assert (to_srgb(Decoded(image, profile)) == converted_pixels(image, profile)).all()


@pytest.mark.parametrize("name", LAST)
def test_the_order_makes_next_to_no_difference_where_it_is_changed(name: str) -> None:
    """A drawing is harder than a photograph: noise at each pixel, edges between the purest colours."""
    mode, make = LAST[name]
    decoded = Decoded(PHOTO.convert(mode), make())
    assert np.abs(resize(decoded).astype(int) - resize(to_srgb(decoded))).mean() < 1


@pytest.mark.parametrize("name", LAST | FIRST)
@pytest.mark.parametrize("orientation", [1, 6])
def test_the_pixels_of_a_file_are_those_without_its_profile(name: str, orientation: int) -> None:
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
def test_the_square_of_a_file_is_that_of_its_decoded_image(name: str) -> None:
    mode, make = (LAST | FIRST)[name]
    data = encode(PHOTO.convert(mode), "JPEG", quality=90, icc_profile=make())
    with ThreadPoolExecutor(4) as pool:
        for square in pool.map(lambda _: decode_square(data, ResizeRule()), range(8)):
            assert (square == resize(decode_image(data))).all()


def test_a_large_jpeg_is_made_small_before_its_profile_is_applied() -> None:
    data = encode(PHOTO.resize((2048, 1536)).convert("CMYK"), "JPEG", icc_profile=cmyk_profile())
    decoded = decode_image(data)
    assert decoded.image.size == (1024, 768)
    assert (resize(decoded) == resize(converted_pixels(decoded.image, cmyk_profile()))).all()


def test_the_conversion_of_a_profile_seen_before_is_kept() -> None:
    conversion, again = (find_conversion(Decoded(PHOTO, matrix_profile(2.3))) for _ in range(2))
    assert conversion is not None
    assert again is conversion


def test_a_profile_is_kept_for_each_mode() -> None:
    cache, profile = ConversionCache(10, 100_000_000), matrix_profile(2.2)
    assert cache.find(profile, "L") is None
    assert cache.find(profile, "RGB") is not None
    assert cache.find(profile, "CMYK") is None


def test_of_too_many_profiles_those_used_last_are_kept() -> None:
    cache = ConversionCache(max_entries=3, max_bytes=100_000_000)
    profiles = [matrix_profile(1 + number / 10) for number in range(4)]
    conversions = [cache.find(profile, "RGB") for profile in profiles[:3]]
    assert cache.find(profiles[0], "RGB") is conversions[0]
    cache.find(profiles[3], "RGB")
    assert cache.find(profiles[0], "RGB") is conversions[0]
    assert cache.find(profiles[2], "RGB") is conversions[2]
    assert cache.find(profiles[1], "RGB") is not conversions[1]


def test_large_profiles_leave_room_to_fewer() -> None:
    cache = ConversionCache(max_entries=100, max_bytes=4_000_000)
    profiles = [matrix_profile(1 + number / 10) + bytes(2_000_000) for number in range(2)]
    first = cache.find(profiles[0], "RGB")
    assert first is not None
    assert cache.find(profiles[0], "RGB") is first
    cache.find(profiles[1], "RGB")
    assert cache.find(profiles[0], "RGB") is not first


def test_that_nothing_is_to_be_done_is_remembered_too(monkeypatch: pytest.MonkeyPatch) -> None:
    cache = ConversionCache(10, 100_000_000)
    profiles = (ImageCms.ImageCmsProfile(SRGB).tobytes(), b"rubbish")
    assert [cache.find(profile, "RGB") for profile in profiles] == [None, None]
    monkeypatch.setattr(ImageCms, "ImageCmsProfile", None)
    assert [cache.find(profile, "RGB") for profile in profiles] == [None, None]


@pytest.mark.photographs
def test_real_photographs_differ_little_from_those_converted_first(photographs: Path) -> None:
    differences = []
    for path in sorted(photographs.glob("*/*.jpg"))[::5]:
        decoded = decode_image(path.read_bytes())
        if find_conversion(decoded) is not None:
            differences.append(np.abs(resize(decoded).astype(int) - resize(to_srgb(decoded))).mean())
    assert len(differences) > 50
    assert np.mean(differences) < 0.5
