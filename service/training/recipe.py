"""Recipe of a training. It is a frozen record of every value that shapes the result."""

import importlib
import pkgutil
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from service.errors import SettingsError
from service.training.schedule import Schedule


@dataclass(frozen=True)
class Augmentation:
    """Changes that make many views of a photograph. With all of them off, a view is the square of serving.

    `min_area` is the least share of the photograph's area in a random crop. 1 takes the serving crop. `max_aspect` is
    the crop's largest ratio of sides. `color` is the largest relative change of brightness, contrast and saturation.
    `mixup` is the alpha of the Beta distribution that two views are blended with. 0 means no blend. `unmixed` is the
    share of views that are left alone. `cutmix` is the share of the others that get a rectangle instead of a blend.
    Shares of views are `turned` by a quarter or more, `grey`, `bordered` by a plain ground, or `degraded` by one of
    blur, noise, a small size and JPEG.
    """

    flip: bool = True
    min_area: float = 1.0
    max_aspect: float = 4 / 3
    color: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0
    unmixed: float = 0.0
    turned: float = 0.0
    grey: float = 0.0
    bordered: float = 0.0
    degraded: float = 0.0


@dataclass(frozen=True)
class Teaching:
    """A teacher whose answers are the targets.

    `teacher` is a name that `load_backbone` knows. The upper share `tuned` of its layers learns for `epochs`. It then
    answers `num_views` views of each photograph, mixed as they are, at `temperature`. The epochs take them in turn. A
    higher temperature also tells which wrong classes are less wrong. With a `feature_weight` the network's first dense
    layer also learns to foretell the teacher's features. Their squared error, as a share of their variance, has this
    weight beside the cross-entropy.

    Sources: Hinton et al. (2015), "Distilling the Knowledge in a Neural Network". Romero et al. (2015), "FitNets: Hints
    for Thin Deep Nets". Beyer et al. (2022), "Knowledge distillation: A good teacher is patient and consistent".
    """

    teacher: str
    num_views: int = 16
    epochs: int = 6
    tuned: float = 0.5
    temperature: float = 1.0
    feature_weight: float = 0.0


@dataclass(frozen=True)
class AlexNetRecipe:
    """One way to train an AlexNet. The network sees `pixel * scale + offset`.

    Without `teaching` every epoch has its own views, and the labels are the targets. `precision` is a dtype policy of
    Keras, or "auto" for the fastest here. With `refit` a second network learns from training and validation part. It is
    published with the first one's calibration. With `num_folds` the network learns from both parts at once. Its
    calibration comes from as many networks of a cross-validation. `model_name` is the model's default name.
    `every_device` trains once on each device.

    `begin_with` is the version whose network goes on learning, from both parts. None begins with random weights. The
    published weights are the mean of its own, with the share `begun_share` in [0, 1], and of the trained ones. Of the
    outliers, at most `most_of_source` are taken from a source, and none from `held_out_sources`. Those are for a
    measurement. 0 means all.
    """

    name: str
    network: str
    schedule: Schedule
    batch_norm: bool = False
    dropout: float = 0.2
    label_smoothing: float = 0.0
    augmentation: Augmentation = field(default_factory=Augmentation)
    teaching: Teaching | None = None
    scale: float = 1 / 255
    offset: float = 0.0
    precision: str = "auto"
    refit: bool = False
    num_folds: int = 0
    model_name: str | None = None
    every_device: bool = False
    begin_with: int | None = None
    begun_share: float = 0.0
    most_of_source: int = 0
    held_out_sources: tuple[str, ...] = ()

    @property
    def backbones(self) -> tuple[str, ...]:
        """Names of the pretrained networks that may be needed."""
        return (self.teaching.teacher,) if self.teaching else ()

    @property
    def is_for_jax(self) -> bool:
        """Whether the recipe trains on JAX where KERAS_BACKEND asks for it. Its folds are made for a GPU."""
        return self.num_folds > 0


@dataclass(frozen=True)
class TransferRecipe:
    """One way to teach new classes to a pretrained network.

    `network` is a name of `LITES`. A new last layer learns on its frozen features. With at least `min_validation`
    photographs in the validation part, the network is `tuned_network`, and the upper share `tuned` of its layers learns
    by `schedule`, too. 0 means none. The tuned network is published if its loss on that part is lower. The published
    network learns from both parts. A last layer alone is calibrated by a cross-validation of `num_folds`.

    Sources: Kornblith et al. (2019), "Do Better ImageNet Models Transfer Better?". Kumar et al. (2022), "Fine-Tuning
    can Distort Pretrained Features and Underperform Out-of-Distribution", for the last layer first.
    """

    name: str
    network: str
    schedule: Schedule
    augmentation: Augmentation = field(default_factory=Augmentation)
    tuned_network: str = "efficientnet_lite2"
    tuned: float = 0.5
    min_validation: int = 50
    num_folds: int = 5
    model_name: str | None = None
    every_device: bool = False

    @property
    def backbones(self) -> tuple[str, ...]:
        """Names of the pretrained networks that may be needed."""
        return tuple(dict.fromkeys((self.network, self.tuned_network)))

    @property
    def is_for_jax(self) -> bool:
        """Whether the recipe trains on JAX where KERAS_BACKEND asks for it."""
        return False


Recipe = AlexNetRecipe | TransferRecipe
"""Any recipe."""

_ORDER = (
    "name", "network", "epochs", "batch_size", "batch_norm", "dropout", "learning_rate", "warmup_epochs", "cosine",
    "weight_decay", "label_smoothing", "average_decay", "swa_share", "swa_learning_rate", "augmentation", "teacher",
    "num_views", "teacher_epochs", "teacher_tuned", "teacher_temperature", "feature_weight", "scale", "offset",
    "precision", "refit", "model_name", "every_device",
)  # fmt: skip


def recipe_values(recipe: Recipe) -> dict[str, Any]:
    """Return the recipe's values as metadata and run folders state them: names to numbers, words and flags."""
    if isinstance(recipe, TransferRecipe):
        values = asdict(recipe)
        return {"name": recipe.name, "network": recipe.network, **values.pop("schedule"), **values}
    teaching = asdict(recipe.teaching or Teaching("none"))
    teaching |= {f"teacher_{name}": teaching[name] for name in ("epochs", "tuned", "temperature")}
    values = teaching | asdict(recipe) | asdict(recipe.schedule)
    begun = {} if recipe.begin_with is None else {"begin_with": recipe.begin_with, "begun_share": recipe.begun_share}
    return {name: values[name] for name in _ORDER} | begun


def find_recipe(
    name: str, *, network: str | None = None, epochs: int | None = None, batch_size: int | None = None,
    teacher: str | None = None, begin_with: int | None = None,
) -> Recipe:  # fmt: skip
    """Return the RECIPE of the module `service.training.recipes.<name>`. Other values, if given, replace its own.

    Raises `SettingsError` if there is no such recipe, or a value is out of bounds.
    """
    package = importlib.import_module("service.training.recipes")
    names = sorted(module.name for module in pkgutil.iter_modules(package.__path__))
    if name not in names:
        raise SettingsError(f"There is no recipe {name!r}. Take one of {', '.join(names)}.")
    recipe: Recipe = importlib.import_module(f"service.training.recipes.{name}").RECIPE
    assert isinstance(recipe, Recipe)
    _check_network(recipe, network, teacher)
    if isinstance(recipe, TransferRecipe) and begin_with is not None:
        raise SettingsError(f"--begin-with is for an AlexNet. Leave it out, or take a recipe other than {recipe.name}.")
    schedule = recipe.schedule
    if isinstance(recipe, TransferRecipe) and epochs == 0:
        recipe, epochs = replace(recipe, tuned=0.0), None
    epochs = schedule.epochs if epochs is None else epochs
    schedule = replace(schedule, epochs=epochs, batch_size=batch_size or schedule.batch_size)
    recipe = replace(recipe, network=network or recipe.network, schedule=schedule)
    if isinstance(recipe, TransferRecipe):
        return replace(recipe, tuned_network=network or recipe.tuned_network)
    teaching = recipe.teaching
    if teacher is not None:
        teaching = None if teacher == "none" else replace(teaching or Teaching(teacher), teacher=teacher)
    if begin_with is not None:
        recipe = replace(recipe, begin_with=begin_with, refit=False, num_folds=0)
    return replace(recipe, teaching=teaching)


def _check_network(recipe: Recipe, network: str | None, teacher: str | None) -> None:
    is_transfer = isinstance(recipe, TransferRecipe)
    if network is not None and network.startswith("alexnet") == is_transfer:
        kind = "an EfficientNet-Lite" if is_transfer else "an AlexNet"
        raise SettingsError(
            f"--network is {network}. The recipe {recipe.name} trains {kind}. Leave out one of the two."
        )
    if teacher is not None and is_transfer:
        raise SettingsError(f"The recipe {recipe.name} has no teacher. Leave out --teacher, or take --recipe default.")
