from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from support.drawing import draw_photograph

from service.imaging.limits import ResizeRule
from service.imaging.resize import resize
from service.training.augment import augment_view, cutmix, mixed_view, mixup, training_view, unmixed_view
from service.training.recipe import Augmentation

RULE = ResizeRule()
PHOTOGRAPH = np.asarray(draw_photograph(2, seed=3, size=(340, 256)))
STRONG = Augmentation(flip=True, min_area=0.25, color=0.3)


def test_without_augmentation_the_view_is_what_serving_sees() -> None:
    view = augment_view(PHOTOGRAPH, Augmentation(flip=False), RULE, np.random.default_rng(0))
    np.testing.assert_array_equal(view, resize(PHOTOGRAPH, RULE))


def test_a_flip_gives_the_view_or_its_mirror_image() -> None:
    straight = resize(PHOTOGRAPH, RULE)
    mirrored = 0
    for seed in range(20):
        view = augment_view(PHOTOGRAPH, Augmentation(flip=True), RULE, np.random.default_rng(seed))
        is_mirrored = np.array_equal(view, straight[:, ::-1])
        assert is_mirrored or np.array_equal(view, straight)
        mirrored += is_mirrored
    assert 4 <= mirrored <= 16


def test_one_seed_gives_one_view_and_another_seed_another() -> None:
    first, again, other = (augment_view(PHOTOGRAPH, STRONG, RULE, np.random.default_rng(s)) for s in (7, 7, 8))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize("size", [(340, 256), (256, 256), (256, 1024), (1024, 256)])
def test_every_view_is_a_uint8_square(size: tuple[int, int]) -> None:
    photograph = np.asarray(draw_photograph(0, seed=1, size=size))
    for seed in range(10):
        view = augment_view(photograph, STRONG, RULE, np.random.default_rng(seed))
        assert view.shape == (224, 224, 3)
        assert view.dtype == np.uint8


def test_colour_changes_brightness_within_its_bounds() -> None:
    grey = np.full((256, 256, 3), 100, np.uint8)
    means = [
        augment_view(grey, Augmentation(flip=False, color=0.25), RULE, np.random.default_rng(seed)).mean()
        for seed in range(50)
    ]
    assert min(means) < 85
    assert max(means) > 115
    assert all(74 <= mean <= 126 for mean in means)


def test_colour_is_an_affine_map() -> None:
    view = augment_view(PHOTOGRAPH, Augmentation(flip=False, color=0.3), RULE, np.random.default_rng(5))
    plain = resize(PHOTOGRAPH, RULE).astype(np.float64)
    brightness, contrast, saturation = np.random.default_rng(5).uniform(0.7, 1.3, size=3)
    grey = (plain @ [0.299, 0.587, 0.114])[..., None]
    saturated = grey + saturation * (plain - grey)
    expected = brightness * (plain.mean() + contrast * (saturated - plain.mean()))
    np.testing.assert_allclose(view, expected.clip(0, 255), atol=0.51)


def filled(value: int) -> np.ndarray:
    return np.full((20, 30, 3), value, np.uint8)


def test_mixup_blends_two_images_by_its_share() -> None:
    shares = []
    for seed in range(40):
        mixed, share = mixup(filled(200), filled(0), 1.0, np.random.default_rng(seed))
        np.testing.assert_allclose(mixed, 200 * share, atol=1)
        shares.append(share)
    assert min(shares) < 0.2
    assert max(shares) > 0.8


def test_cutmix_pastes_a_rectangle_and_returns_the_rest() -> None:
    shares = []
    for seed in range(40):
        own = filled(200)
        mixed, share = cutmix(own, filled(0), np.random.default_rng(seed))
        assert (own == 200).all()
        assert (mixed == 200).mean() == pytest.approx(share)
        rows, columns = np.nonzero(mixed[..., 0] == 0)
        if len(rows):
            assert (mixed[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1] == 0).all()
        shares.append(share)
    assert min(shares) < 0.2
    assert max(shares) > 0.8


@pytest.mark.parametrize(
    ("augmentation", "alone", "cut"),
    [
        (Augmentation(flip=False), 1.0, 0.0),
        (Augmentation(flip=False, mixup=1.0), 0.0, 0.0),
        (Augmentation(flip=False, mixup=1.0, cutmix=0.5), 0.0, 0.5),
        (Augmentation(flip=False, mixup=1.0, cutmix=0.5, unmixed=0.2), 0.2, 0.4),
        (Augmentation(flip=False, cutmix=0.5), 0.5, 0.5),
    ],
)
def test_views_are_mixed_as_often_as_the_recipe_says(augmentation: Augmentation, alone: float, cut: float) -> None:
    photographs = [np.full((24, 24, 3), 10 * number, np.uint8) for number in range(20)]
    rule = ResizeRule(image_size=24, shorter_side=24)
    num_alone = num_cut = 0
    for seed in range(400):
        view = mixed_view(photographs, 19, np.random.default_rng(seed), augmentation, rule)
        expected = view.share * 190 + (1 - view.share) * 10 * view.other
        assert view.pixels.mean() == pytest.approx(expected, abs=1.0)
        num_alone += view.share == 1 and view.other == 19
        num_cut += set(np.unique(view.pixels)) <= {190, 10 * view.other} and view.share < 1  # a blend has a third value
    assert num_alone / 400 == pytest.approx(alone, abs=0.08)
    assert num_cut / 400 == pytest.approx(cut, abs=0.1)


def test_the_teachers_view_is_the_same_but_unmixed() -> None:
    augmentation = replace(STRONG, cutmix=1.0)
    photographs = [PHOTOGRAPH, 255 - PHOTOGRAPH]
    mixed, alone = (
        make(augmentation, RULE)(photographs, 0, np.random.default_rng(4)) for make in (training_view, unmixed_view)
    )
    assert (alone.other, alone.share) == (0, 1.0)
    np.testing.assert_array_equal(alone.pixels, augment_view(PHOTOGRAPH, STRONG, RULE, np.random.default_rng(4)))
    own = (mixed.pixels == alone.pixels).all(axis=2).mean()
    assert own == pytest.approx(mixed.share, abs=0.05)
    assert mixed.share < 1


DISTORTED: dict[str, Callable[[float], Augmentation]] = {
    "turned": lambda share: Augmentation(flip=False, turned=share),
    "grey": lambda share: Augmentation(flip=False, grey=share),
    "bordered": lambda share: Augmentation(flip=False, bordered=share),
    "degraded": lambda share: Augmentation(flip=False, degraded=share),
}


@pytest.mark.parametrize("name", DISTORTED)
def test_a_distortion_is_as_frequent_as_its_share(name: str) -> None:
    straight = resize(PHOTOGRAPH, RULE)
    for share, expected in ((0.0, 0.0), (0.5, 0.5), (1.0, 1.0)):
        distorted = DISTORTED[name](share)
        views = [augment_view(PHOTOGRAPH, distorted, RULE, np.random.default_rng(seed)) for seed in range(30)]
        changed = np.mean([not np.array_equal(view, straight) for view in views])
        assert changed == pytest.approx(expected, abs=0.25 if share == 0.5 else 0)
