"""One photograph, many views: crops, mirror images, colour, and blends of two; NumPy and Pillow, any backend."""

import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from service.data.batches import View
from service.imaging.pixels import Pixels, ResizeRule
from service.imaging.resize import resize
from service.training.recipe import Augmentation, Recipe

_LUMA = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601, the grey that saturation is measured from


def training_view(recipe: Recipe, rule: ResizeRule) -> View:
    """How the recipe makes one view of a photograph."""
    return lambda image, random: augment_view(image, recipe.augmentation, rule, random)


def augment_view(image: Pixels, augmentation: Augmentation, rule: ResizeRule, random: np.random.Generator) -> Pixels:
    """One random view of a photograph.

    Args:
        image: uint8, shape (height, width, 3), RGB.
        augmentation: what may happen to it.
        rule: the size of the result, and the crop where the recipe has no random one.
        random: consumed in a fixed order, so one seed gives one view.

    Returns:
        uint8, shape (image_size, image_size, 3), read-only.
    """
    picture = Image.fromarray(image)
    if augmentation.min_area < 1:
        picture = _random_crop(picture, augmentation, rule.image_size, random)
    else:
        picture = Image.fromarray(resize(picture, rule))
    if augmentation.flip and random.random() < 0.5:
        picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    if augmentation.color > 0:
        picture = _jitter_color(picture, augmentation.color, random)
    return np.asarray(picture)


def _random_crop(
    picture: Image.Image, augmentation: Augmentation, image_size: int, random: np.random.Generator
) -> Image.Image:
    # The inception crop: a share of the area and a ratio of sides; a crop that would not fit is cut to the picture.
    width, height = picture.size
    area = height * width * random.uniform(augmentation.min_area, 1)
    bound = math.log(augmentation.max_aspect)
    aspect = math.exp(random.uniform(-bound, bound))
    crop_width = min(math.sqrt(area * aspect), width)
    crop_height = min(math.sqrt(area / aspect), height)
    left = random.uniform(0, width - crop_width)
    top = random.uniform(0, height - crop_height)
    box = (left, top, left + crop_width, top + crop_height)
    return picture.resize((image_size, image_size), Image.Resampling.BILINEAR, box)


def _jitter_color(picture: Image.Image, strength: float, random: np.random.Generator) -> Image.Image:
    # Brightness, contrast and saturation are one affine map of a pixel's three values: one pass over the picture.
    brightness, contrast, saturation = random.uniform(1 - strength, 1 + strength, size=3)
    weights = contrast * brightness * (saturation * np.eye(3) + (1 - saturation) * _LUMA)
    offset = np.asarray(picture).mean() * (1 - contrast) * brightness
    return picture.convert("RGB", tuple(np.column_stack((weights, np.full(3, offset))).ravel().tolist()))


def mix(
    images: NDArray[np.float32], targets: NDArray[np.float32], augmentation: Augmentation, random: np.random.Generator
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Each image blended with another, or pasted into, as `augmentation` says; shapes as of `mixup` and `cutmix`."""
    mixed_images, mixed_targets = images, targets
    if augmentation.mixup > 0:
        mixed_images, mixed_targets = mixup(images, targets, augmentation.mixup, random)
    if augmentation.cutmix > 0:
        is_cut = random.random(len(images)) < augmentation.cutmix
        cut_images, cut_targets = cutmix(images[is_cut], targets[is_cut], random)
        mixed_images, mixed_targets = mixed_images.copy(), mixed_targets.copy()
        mixed_images[is_cut], mixed_targets[is_cut] = cut_images, cut_targets
    return mixed_images, mixed_targets


def mixup(
    images: NDArray[np.float32], targets: NDArray[np.float32], alpha: float, random: np.random.Generator
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Blend every image, and its target, with another of the batch.

    Args:
        images: float32, shape (N, height, width, 3).
        targets: float32, shape (N, num_classes), rows sum to 1.
        alpha: both parameters of the Beta distribution of the share, one share per image.
        random: where shares and partners come from.

    Returns:
        The same shapes and dtypes; rows of targets still sum to 1.

    Source: Zhang et al. (2018), "mixup: Beyond Empirical Risk Minimization".
    """
    share = random.beta(alpha, alpha, size=len(images)).astype(np.float32)
    partner = random.permutation(len(images))
    pixel_share = share[:, None, None, None]
    return (
        images * pixel_share + images[partner] * (1 - pixel_share),
        targets * share[:, None] + targets[partner] * (1 - share[:, None]),
    )


def cutmix(
    images: NDArray[np.float32], targets: NDArray[np.float32], random: np.random.Generator
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Paste a rectangle of another image into each, at the place where it was.

    Its area is uniform between nothing and the whole; a target becomes the mean of both by area.

    Args:
        images: float32, shape (N, height, width, 3).
        targets: float32, shape (N, num_classes), rows sum to 1.
        random: where rectangles and partners come from.

    Returns:
        The same shapes and dtypes; rows of targets still sum to 1.

    Source: Yun et al. (2019), "CutMix: Regularization Strategy to Train Strong Classifiers with Localizable Features".
    """
    num_images, height, width, _ = images.shape
    partner = random.permutation(num_images)
    mixed_images, mixed_targets = images.copy(), targets.copy()
    for i in range(num_images):
        side = math.sqrt(random.random())
        cut_height, cut_width = round(height * side), round(width * side)
        top, left = random.integers(height - cut_height + 1), random.integers(width - cut_width + 1)
        place = np.s_[top : top + cut_height, left : left + cut_width]
        mixed_images[i][place] = images[partner[i]][place]
        area = np.float32(cut_height * cut_width / (height * width))
        mixed_targets[i] = targets[i] * (1 - area) + targets[partner[i]] * area
    return mixed_images, mixed_targets
