"""The square that the network takes, and the whole images of the training cache."""

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from support.drawing import draw_photograph

from service.imaging.limits import ResizeRule
from service.imaging.pixels import Pixels
from service.imaging.resize import resize, resize_shorter_side, scaled_size


def photograph(width: int, height: int) -> Pixels:
    return np.asarray(draw_photograph(3, 5, (width, height)))


def slope(width: int, height: int) -> Pixels:
    """Red grows to the right, green downwards, both over the whole range."""
    pixels = np.full((height, width, 3), 128, np.uint8)
    pixels[..., 0] = np.rint(np.linspace(0, 255, width))
    pixels[..., 1] = np.rint(np.linspace(0, 255, height))[:, None]
    return pixels


def difference(one: Pixels, other: Pixels) -> NDArray[np.int64]:
    distance: NDArray[np.int64] = np.abs(one.astype(np.int64) - other)
    return distance


@pytest.mark.parametrize(
    "size",
    [
        (320, 240),
        (240, 320),
        (224, 224),
        (256, 256),
        (255, 257),
        (1, 1),
        (2, 3),
        (1, 50_000),
        (50_000, 1),
        (3000, 17),
    ],
)
def test_any_image_becomes_the_square_of_the_rule(size: tuple[int, int]) -> None:
    for rule in (ResizeRule(), ResizeRule(32, 36), ResizeRule(64, 64)):
        square = resize(np.full((size[1], size[0], 3), (10, 20, 30), np.uint8), rule)
        assert square.dtype == np.uint8
        assert square.shape == (rule.image_size, rule.image_size, 3)
        assert (square == (10, 20, 30)).all()


def test_the_shorter_side_is_scaled_the_centre_cut() -> None:
    """Against the same in two steps, as the rule is usually told: scale the whole, then cut."""
    image = photograph(640, 480)
    whole = Image.fromarray(image).resize((round(640 * 256 / 480), 256), Image.Resampling.BILINEAR)
    left = (whole.width - 224) / 2
    cut = np.asarray(whole)[16:240, int(left) : int(left) + 224]
    assert difference(resize(image), cut).mean() < 3


@pytest.mark.parametrize("size", [(400, 300), (300, 400), (500, 499), (111, 301)])
def test_the_square_lies_in_the_middle(size: tuple[int, int]) -> None:
    square = resize(slope(*size)).astype(float)
    kept = min(size) * 224 / 256
    for channel, length in enumerate(size):
        line = square[112, :, 0] if channel == 0 else square[:, 112, 1]
        assert line.mean() == pytest.approx(127.5, abs=1)
        assert np.ptp(line) == pytest.approx(255 * kept / length, abs=3)


@pytest.mark.parametrize("size", [(320, 240), (241, 320), (99, 101), (1001, 502)])
def test_a_mirrored_image_gives_the_mirrored_square(size: tuple[int, int]) -> None:
    image = photograph(*size)
    for mirror in (np.s_[:, ::-1], np.s_[::-1], np.s_[::-1, ::-1]):
        assert difference(resize(np.ascontiguousarray(image[mirror])), resize(image)[mirror]).max() <= 1


def test_fine_patterns_are_averaged_not_sampled() -> None:
    """Every other pixel white: without antialiasing the square would be striped or one-coloured."""
    image = np.zeros((1024, 1024, 3), np.uint8)
    image[:, ::2] = 255
    assert difference(resize(image), np.full((224, 224, 3), 127, np.uint8)).max() <= 8


def test_a_small_image_is_enlarged() -> None:
    square = resize(slope(16, 16))
    assert square[112, :, 0].tolist() == sorted(square[112, :, 0].tolist())
    assert len(np.unique(square[112, :, 0])) > 100


def test_an_image_of_the_rule_s_size_is_kept() -> None:
    image = photograph(224, 224)
    assert (resize(image, ResizeRule(224, 224)) == image).all()


def test_the_image_given_is_not_changed() -> None:
    image = photograph(320, 240).copy()
    before = image.copy()
    resize(image)
    resize_shorter_side(image, 64)
    assert (image == before).all()


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((640, 480), (341, 256)),
        ((480, 640), (256, 341)),
        ((300, 300), (256, 256)),
        ((100, 80), (320, 256)),
        ((1, 1), (256, 256)),
        ((50_000, 1), (1024, 256)),
        ((10, 4000), (256, 1024)),
    ],
)
def test_the_training_cache_cuts_images_of_extreme_shape(size: tuple[int, int], expected: tuple[int, int]) -> None:
    resized = resize_shorter_side(slope(*size), 256)
    assert scaled_size(size[1], size[0], 256) == resized.shape[:2]
    assert (resized.shape[1], resized.shape[0]) == expected
    assert resized.dtype == np.uint8


def test_a_long_image_is_cut_at_both_ends_alike() -> None:
    line = resize_shorter_side(slope(1600, 100), 50)[25, :, 0]
    assert line.shape == (200,)
    assert int(line[0]) + int(line[-1]) == pytest.approx(255, abs=2)


def test_a_cached_image_gives_nearly_the_original_s_square() -> None:
    image = photograph(1200, 900)
    cached = resize_shorter_side(image, 256)
    assert difference(resize(cached), resize(image)).mean() < 3
