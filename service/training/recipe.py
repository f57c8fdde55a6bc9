"""What a training is made of: every value that shapes the result, in one frozen record."""

import importlib
import pkgutil
from dataclasses import dataclass, field

from service.errors import SettingsError


@dataclass(frozen=True)
class Augmentation:
    """How one photograph becomes many views; everything off is the photograph as serving sees it, mirrored or not.

    `min_area` is the least share of the picture's area that a random crop takes (1 takes the serving crop instead),
    `max_aspect` its largest ratio of sides, `color` the largest relative change of brightness, contrast and saturation,
    `mixup` the alpha of the Beta distribution that two views are blended with (0: not at all), `unmixed` the share of
    views that are left alone, `cutmix` the share of the others that get a rectangle of another instead of the blend.

    Sources: Szegedy et al. (2015) for the crops, Zhang et al. (2018) for mixup, Yun et al. (2019) for cutmix.
    """

    flip: bool = True
    min_area: float = 1.0
    max_aspect: float = 4 / 3
    color: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0
    unmixed: float = 0.0


@dataclass(frozen=True)
class Recipe:
    """One way to train. The networks see `pixel * scale + offset`.

    `learning_rate` is the peak; with `cosine` it rises over `warmup_epochs` and falls to zero along a half cosine.
    `weight_decay` is decoupled (AdamW) and spares biases and normalisation. `average_decay` is the decay per step of
    the running average of weights that is evaluated and exported; 0 takes the weights themselves. Over the last
    `swa_share` of the epochs the rate stands at `swa_learning_rate` instead, and what is evaluated and exported is the
    mean of all weights, statistics of normalisation included, that these epochs ended with.

    Without a `teacher` every epoch has its own views, and the labels are the targets. With one, a name that
    `networks/backbones.py` knows, each photograph has `num_views` views that the epochs take in turn, and the targets
    are the teacher's answers to them, mixed as they are, at `teacher_temperature`: above 1 they also tell which wrong
    classes it finds less wrong than others. The upper share `teacher_tuned` of its layers is trained for
    `teacher_epochs` before. With a `feature_weight` the network's first dense layer learns to foretell the teacher's
    features, too, through one more layer that is left behind after the training: of every view a few hundred numbers
    instead of one per class. Their squared error, as a share of their variance, has this weight beside the
    cross-entropy.

    Sources: Hinton et al. (2015), "Distilling the Knowledge in a Neural Network"; Romero et al. (2015), "FitNets:
    Hints for Thin Deep Nets"; Beyer et al. (2022), "Knowledge distillation: A good teacher is patient and consistent",
    for the same mixed view to both and long schedules; Izmailov et al. (2018), "Averaging Weights Leads to Wider Optima
    and Better Generalization", for the mean.
    """

    name: str
    network: str
    epochs: int
    batch_size: int
    batch_norm: bool = False
    dropout: float = 0.2
    learning_rate: float = 1e-3
    warmup_epochs: float = 0.0
    cosine: bool = False
    weight_decay: float = 0.0
    label_smoothing: float = 0.0
    average_decay: float = 0.0
    swa_share: float = 0.0
    swa_learning_rate: float = 5e-4
    augmentation: Augmentation = field(default_factory=Augmentation)
    teacher: str = "none"
    num_views: int = 16
    teacher_epochs: int = 6
    teacher_tuned: float = 0.5
    teacher_temperature: float = 1.0
    feature_weight: float = 0.0
    scale: float = 1 / 255
    offset: float = 0.0
    precision: str = "auto"
    """What training computes in: a dtype policy of Keras, or "auto" for the fastest here (`training/precision.py`)."""
    refit: bool = False
    """Train a second network on training and validation part together and publish it, with the first's calibration."""
    model_name: str | None = None
    """Published under this name unless the caller gives another."""
    every_device: bool = False
    """Train once on each device there is, and end with a table."""


def find_recipe(name: str) -> Recipe:
    """The recipe `name`: the value RECIPE of the module `service.training.recipes.<name>`.

    Raises:
        SettingsError: there is none; the message lists those there are.
    """
    package = importlib.import_module("service.training.recipes")
    names = sorted(module.name for module in pkgutil.iter_modules(package.__path__))
    if name not in names:
        raise SettingsError(f"there is no recipe {name!r}: take one of {', '.join(names)}")
    recipe = importlib.import_module(f"service.training.recipes.{name}").RECIPE
    assert isinstance(recipe, Recipe)
    return recipe
