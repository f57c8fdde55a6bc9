"""Augmentation of photographs with crops, mirror images, colour, distortions and mixtures of two."""

import math
from dataclasses import replace
from functools import partial

import numpy as np
from PIL import Image

from service.data.stored import Photographs
from service.data.views import MakeView, View
from service.imaging.limits import ResizeRule
from service.imaging.pixels import Pixels
from service.imaging.resize import resize
from service.training.distort import add_border, degrade, make_grey, turn
from service.training.recipe import Augmentation

_LUMA = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601, the grey that saturation is measured from


def training_view(augmentation: Augmentation, rule: ResizeRule) -> MakeView:
    """Return the function that makes a view of a photograph, mixed with another's."""
    return partial(mixed_view, augmentation=augmentation, rule=rule)


def unmixed_view(augmentation: Augmentation, rule: ResizeRule) -> MakeView:
    """Return the function that makes a view of a photograph alone."""
    return training_view(replace(augmentation, mixup=0.0, cutmix=0.0), rule)


def mixed_view(
    photographs: Photographs, number: int, random: np.random.Generator, augmentation: Augmentation, rule: ResizeRule
) -> View:
    """Make a view of photograph `number`, mixed with one of another. Arguments are as of `augment_view`."""
    own = augment_view(photographs[number], augmentation, rule, random)
    is_cut = random.random() < augmentation.cutmix
    if random.random() < augmentation.unmixed or not (is_cut or augmentation.mixup > 0):
        return View(own, number, 1.0)
    other = int(random.integers(len(photographs)))
    pixels = augment_view(photographs[other], augmentation, rule, random)
    mixed, share = cutmix(own, pixels, random) if is_cut else mixup(own, pixels, augmentation.mixup, random)
    return View(mixed, other, share)


def augment_view(image: Pixels, augmentation: Augmentation, rule: ResizeRule, random: np.random.Generator) -> Pixels:
    """Make a random view, uint8 (image_size, image_size, 3), read-only, of a photograph, uint8 (height, width, 3), RGB.

    `rule` is the size of the view, and its crop without a random one. One seed of `random` gives one view.
    """
    if augmentation.min_area < 1:
        view = _random_crop(Image.fromarray(image), augmentation, rule.image_size, random)
    else:
        view = Image.fromarray(resize(image, rule))
    if augmentation.flip and random.random() < 0.5:
        view = view.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    if augmentation.color > 0:
        view = _jitter_color(view, augmentation.color, random)
    return np.asarray(_distort(view, augmentation, random))


def _distort(view: Image.Image, augmentation: Augmentation, random: np.random.Generator) -> Image.Image:
    def is_due(share: float) -> bool:
        return share > 0 and random.random() < share  # an unused one draws nothing, so that older views stay

    if is_due(augmentation.turned):
        view = turn(view, random)
    if is_due(augmentation.grey):
        view = make_grey(view)
    if is_due(augmentation.bordered):
        view = add_border(view, random)
    return degrade(view, random) if is_due(augmentation.degraded) else view


def _random_crop(
    photograph: Image.Image, augmentation: Augmentation, image_size: int, random: np.random.Generator
) -> Image.Image:
    # Szegedy et al. (2015): a share of the area and a ratio of sides. A crop that would not fit is cut.
    width, height = photograph.size
    area = height * width * random.uniform(augmentation.min_area, 1)
    bound = math.log(augmentation.max_aspect)
    aspect = math.exp(random.uniform(-bound, bound))
    crop_width = min(math.sqrt(area * aspect), width)
    crop_height = min(math.sqrt(area / aspect), height)
    left = random.uniform(0, width - crop_width)
    top = random.uniform(0, height - crop_height)
    box = (left, top, left + crop_width, top + crop_height)
    return photograph.resize((image_size, image_size), Image.Resampling.BILINEAR, box)


def _jitter_color(view: Image.Image, strength: float, random: np.random.Generator) -> Image.Image:
    # Brightness, contrast and saturation are one affine map of a pixel's three values.
    brightness, contrast, saturation = random.uniform(1 - strength, 1 + strength, size=3)
    weights = contrast * brightness * (saturation * np.eye(3) + (1 - saturation) * _LUMA)
    offset = np.asarray(view).mean() * (1 - contrast) * brightness
    return view.convert("RGB", tuple(np.column_stack((weights, np.full(3, offset))).ravel().tolist()))


def mixup(own: Pixels, other: Pixels, alpha: float, random: np.random.Generator) -> tuple[Pixels, float]:
    """Blend two images, uint8 (height, width, 3). Return the blend and the share of `own` in it.

    `alpha` is both parameters of the Beta distribution of the share.

    Source: Zhang et al. (2018), "mixup: Beyond Empirical Risk Minimization".
    """
    share = float(random.beta(alpha, alpha))
    return np.asarray(Image.blend(Image.fromarray(other), Image.fromarray(own), share)), share


def cutmix(own: Pixels, other: Pixels, random: np.random.Generator) -> tuple[Pixels, float]:
    """Paste a rectangle of `other` into `own`, at the same place. Arguments and result are those of `mixup`.

    Its area is uniform between nothing and the whole.

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
