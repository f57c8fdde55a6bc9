"""Schedule of a training, with its optimizer and its mean of weights."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from service.errors import SettingsError

if TYPE_CHECKING:
    import keras


@dataclass(frozen=True)
class Schedule:
    """Length and pace of a training.

    `learning_rate` is the peak. With `cosine` it rises over `warmup_epochs` and falls to zero along a half cosine.
    `weight_decay` is decoupled (AdamW) and spares biases and normalisation. `average_decay` is the decay per step of a
    running average of the weights, which is evaluated and kept. 0 means the weights themselves. Over the last
    `swa_share` of the epochs the rate stands at `swa_learning_rate`. The mean of the weights at the ends of these
    epochs is then kept, statistics of normalisation included.

    Source: Izmailov et al. (2018), "Averaging Weights Leads to Wider Optima and Better Generalization", for the mean.
    """

    epochs: int
    batch_size: int
    learning_rate: float = 1e-3
    warmup_epochs: float = 0.0
    cosine: bool = False
    weight_decay: float = 0.0
    average_decay: float = 0.0
    swa_share: float = 0.0
    swa_learning_rate: float = 5e-4

    def __post_init__(self) -> None:
        """Raise `SettingsError` for values that no training can have."""
        if min(self.epochs, self.batch_size) < 1 or not 0 <= self.swa_share <= 1 or not 0 <= self.average_decay < 1:
            raise SettingsError(
                f"{self} is no schedule. epochs and batch_size are at least 1, swa_share and average_decay at most 1. "
                "Correct the recipe."
            )

    @property
    def first_of_mean(self) -> int:
        """The first epoch whose weights go into the mean. All later ones do, too."""
        return self.epochs - round(self.epochs * self.swa_share)

    def rate(self, epoch: float) -> float:
        """Return the learning rate. `epoch` counts from 0 and moves with every step."""
        if epoch >= self.first_of_mean and self.swa_share:
            return self.swa_learning_rate
        if epoch < self.warmup_epochs:
            return self.learning_rate * max(epoch, 0.02) / self.warmup_epochs
        if not self.cosine:
            return self.learning_rate
        progress = (epoch - self.warmup_epochs) / max(self.first_of_mean - self.warmup_epochs, 1e-9)
        return self.learning_rate * 0.5 * (1 + math.cos(math.pi * progress))

    def make_optimizer(self) -> "keras.optimizers.AdamW":
        """Make AdamW with the weight decay and the running average."""
        import keras  # here, as a recipe is read without Keras

        optimizer = keras.optimizers.AdamW(
            self.learning_rate, weight_decay=self.weight_decay, use_ema=self.average_decay > 0,
            ema_momentum=self.average_decay or 0.99,
        )  # fmt: skip
        optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
        return optimizer


@dataclass(frozen=True)
class TeacherSchedule(Schedule):
    """Schedule that rises over the first tenth of its steps. An epoch has `num_steps` of them."""

    num_steps: int = 1

    def rate(self, epoch: float) -> float:
        """Return the learning rate, as `Schedule.rate` does."""
        rise = 10 * (epoch + 1 / self.num_steps) / self.epochs
        return self.learning_rate * min(rise, 0.5 * (1 + math.cos(math.pi * epoch / self.epochs)))


def add_to_mean(mean: Sequence[Any], values: Sequence[Any], count: int) -> list[Any]:
    """Return the mean of `count` sets of weights. `mean` is that of the others, `values` is the last.

    States of random streams are no weights. They are taken as they are.
    """
    pairs = zip(mean or values, values, strict=True)
    return [old + (new - old) / count if new.dtype == np.float32 else new for old, new in pairs]
