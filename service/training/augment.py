"""One photograph, many views: crops, mirror images, colour, and mixtures of two; NumPy and Pillow, any backend."""

import math
from dataclasses import replace

import numpy as np
from PIL import Image

from service.data.views import MakeView, Photographs, View
from service.imaging.pixels import Pixels, ResizeRule
from service.imaging.resize import resize
from service.training.recipe import Augmentation, Recipe

_LUMA = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601, the grey that saturation is measured from


def training_view(recipe: Recipe, rule: ResizeRule) -> MakeView:
    """How the recipe makes one view of a photograph, mixed with another's as it says."""
    augmentation = recipe.augmentation
    return lambda photographs, number, random: mixed_view(photographs, number, augmentation, rule, random)


def unmixed_view(recipe: Recipe, rule: ResizeRule) -> MakeView:
    """The same of the photograph alone."""
    augmentation = replace(recipe.augmentation, mixup=0.0, cutmix=0.0)
    return lambda photographs, number, random: mixed_view(photographs, number, augmentation, rule, random)


def mixed_view(
    photographs: Photographs, number: int, augmentation: Augmentation, rule: ResizeRule, random: np.random.Generator
) -> View:
    """One random view of photograph `number`, mixed with one of another; arguments as of `augment_view`."""
    own = augment_view(photographs[number], augmentation, rule, random)
    is_cut = random.random() < augmentation.cutmix
    if random.random() < augmentation.unmixed or not (is_cut or augmentation.mixup > 0):
        return View(own, number, 1.0)
    other = int(random.integers(len(photographs)))
    pixels = augment_view(photographs[other], augmentation, rule, random)
    mixed, share = cutmix(own, pixels, random) if is_cut else mixup(own, pixels, augmentation.mixup, random)
    return View(mixed, other, share)


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
    if augmentation.min_area < 1:
        picture = _random_crop(Image.fromarray(image), augmentation, rule.image_size, random)
    else:
        picture = Image.fromarray(resize(image, rule))
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


def mixup(own: Pixels, other: Pixels, alpha: float, random: np.random.Generator) -> tuple[Pixels, float]:
    """Blend two images.

    Args:
        own: uint8, shape (height, width, 3).
        other: the same.
        alpha: both parameters of the Beta distribution of `own`'s share.
        random: where the share comes from.

    Returns:
        The blend, and the share of `own` in it.

    Source: Zhang et al. (2018), "mixup: Beyond Empirical Risk Minimization".
    """
    share = float(random.beta(alpha, alpha))
    return np.asarray(Image.blend(Image.fromarray(other), Image.fromarray(own), share)), share


def cutmix(own: Pixels, other: Pixels, random: np.random.Generator) -> tuple[Pixels, float]:
    """Paste a rectangle of `other` into `own`, at the place where it was.

    Its area is uniform between nothing and the whole; arguments and result are `mixup`'s.

    Source: Yun et al. (2019), "CutMix: Regularization Strategy to Train Strong Classifiers with Localizable Features".
    """
    height, width, _ = own.shape
    side = math.sqrt(random.random())
    cut_height, cut_width = round(height * side), round(width * side)
    top, left = random.integers(height - cut_height + 1), random.integers(width - cut_width + 1)
    place = np.s_[top : top + cut_height, left : left + cut_width]
    mixed = own.copy()
    mixed[place] = other[place]
    return mixed, 1 - cut_height * cut_width / (height * width)
