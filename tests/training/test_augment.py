import numpy as np
import pytest
from drawing import draw_photograph

from service.imaging.pixels import ResizeRule
from service.imaging.resize import resize
from service.training.augment import augment_view, cutmix, mix, mixup
from service.training.recipe import Augmentation

RULE = ResizeRule()
PHOTOGRAPH = np.asarray(draw_photograph(2, seed=3, size=(340, 256)))
STRONG = Augmentation(flip=True, min_area=0.25, color=0.3)


def test_without_augmentation_the_view_is_what_serving_sees() -> None:
    view = augment_view(PHOTOGRAPH, Augmentation(flip=False), RULE, np.random.default_rng(0))
    np.testing.assert_array_equal(view, resize(PHOTOGRAPH, RULE))


def test_a_flip_alone_gives_the_view_or_its_mirror_image() -> None:
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
def test_every_view_is_a_uint8_square_whatever_the_shape_of_the_photograph(size: tuple[int, int]) -> None:
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


def test_colour_is_one_affine_map_of_brightness_contrast_and_saturation() -> None:
    view = augment_view(PHOTOGRAPH, Augmentation(flip=False, color=0.3), RULE, np.random.default_rng(5))
    plain = resize(PHOTOGRAPH, RULE).astype(np.float64)
    brightness, contrast, saturation = np.random.default_rng(5).uniform(0.7, 1.3, size=3)
    grey = (plain @ [0.299, 0.587, 0.114])[..., None]
    saturated = grey + saturation * (plain - grey)
    expected = brightness * (plain.mean() + contrast * (saturated - plain.mean()))
    np.testing.assert_allclose(view, expected.clip(0, 255), atol=0.51)


def test_mixup_blends_images_and_targets_by_the_same_share() -> None:
    # Image i is filled with i, target i is one-hot: the blended value must be the target's expectation.
    images = np.tile(np.arange(8, dtype=np.float32)[:, None, None, None], (1, 2, 2, 3))
    targets = np.eye(8, dtype=np.float32)
    mixed_images, mixed_targets = mixup(images, targets, 0.5, np.random.default_rng(0))
    np.testing.assert_allclose(mixed_targets.sum(axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(mixed_images[:, 0, 0, 0], mixed_targets @ np.arange(8), atol=1e-5)
    assert (np.count_nonzero(mixed_targets, axis=1) == 2).any()


def test_cutmix_pastes_a_rectangle_and_weighs_targets_by_its_area() -> None:
    images = np.tile(np.arange(8, dtype=np.float32)[:, None, None, None], (1, 20, 30, 3))
    targets = np.eye(8, dtype=np.float32)
    mixed_images, mixed_targets = cutmix(images, targets, np.random.default_rng(0))
    np.testing.assert_allclose(mixed_targets.sum(axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(mixed_images.mean(axis=(1, 2, 3)), mixed_targets @ np.arange(8), atol=1e-4)
    for number, image in enumerate(mixed_images):
        rows, columns = np.nonzero(image[..., 0] != number)
        if len(rows):  # a rectangle, filled with one other image
            cut = image[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
            assert len(np.unique(cut)) == 1
            assert cut.size == 3 * len(rows)
    assert len(np.unique((mixed_images != images).mean(axis=(1, 2, 3)))) > 4, "the areas differ"


@pytest.mark.parametrize(("share", "fewest", "most"), [(0.0, 0, 0), (0.5, 60, 140), (1.0, 180, 200)])
def test_cutmix_takes_its_share_of_the_images_and_mixup_the_rest(share: float, fewest: int, most: int) -> None:
    images = np.random.default_rng(1).random((200, 6, 6, 3), np.float32)
    targets = np.eye(200, dtype=np.float32)
    before = images.copy()
    mixed, _ = mix(images, targets, Augmentation(mixup=1.0, cutmix=share), np.random.default_rng(0))
    of_others = np.isin(mixed, before).all(axis=(1, 2, 3))  # blends have values that no image has
    assert fewest <= of_others.sum() <= most
    np.testing.assert_array_equal(images, before)


def test_without_mixup_and_cutmix_nothing_is_mixed() -> None:
    images, targets = np.ones((2, 4, 4, 3), np.float32), np.eye(2, dtype=np.float32)
    mixed = mix(images, targets, Augmentation(), np.random.default_rng(0))
    np.testing.assert_array_equal(mixed[0], images)
    np.testing.assert_array_equal(mixed[1], targets)
