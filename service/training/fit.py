"""Recipe + photographs -> trained network: one epoch after the other, each ended by validation and a checkpoint."""

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import keras
import numpy as np
from numpy.typing import NDArray

from service.data.batches import LabelledPixels, epoch_batches, one_ahead
from service.errors import TrainingError
from service.imaging.pixels import Pixels, ResizeRule
from service.networks.alexnet import NETWORKS
from service.training.augment import mix, training_view
from service.training.checkpoint import (
    Epoch,
    Variables,
    assign_variables,
    load_checkpoint,
    read_variables,
    save_checkpoint,
)
from service.training.precision import compute_precision, fastest_precision
from service.training.recipe import Recipe

Float32 = NDArray[np.float32]


class Watcher(Protocol):
    """Who wants to see how it goes: a progress bar, or nobody."""

    def step(self, epoch: int, step: int, num_steps: int, loss: float, accuracy: float, images_per_s: float) -> None:
        """One step is done; loss and accuracy are means over the epoch so far."""

    def epoch(self, result: Epoch) -> None:
        """One epoch is done, validation included, and its checkpoint is written."""


@dataclass(frozen=True)
class Fitted:
    """A trained network as built for training, with the weights of its best epoch, and how it got there."""

    model: keras.Model
    history: tuple[Epoch, ...]
    interrupted: bool


def fit(
    recipe: Recipe,
    num_classes: int,
    train: LabelledPixels,
    validation: LabelledPixels | None,
    *,
    rule: ResizeRule,
    seed: int,
    checkpoint: Path,
    watcher: Watcher,
    answers: Float32 | None = None,
) -> Fitted:
    """Train by `recipe`, from `checkpoint` if it exists.

    Views, order and dropout depend on `seed` and on the epoch's number alone, so a training that was killed and run
    again ends with the same weights as one that was not (on the CPU; a GPU sums in no fixed order).

    Args:
        recipe: what to do.
        num_classes: width of the last layer.
        train: whole photographs, larger than the network's input.
        validation: squares as serving makes them; chooses the best epoch. None: the last epoch is taken.
        rule: size of the network's input.
        seed: of initial weights, order, views and dropout.
        checkpoint: file that is written after every epoch.
        watcher: told after each step and epoch.
        answers: a teacher's probabilities, float32, shape (num_views, number of training photographs, num_classes):
            the targets in place of the labels. View v of a photograph is the one that `training_view` makes.

    Returns:
        The network of the epoch with the best validation accuracy (of equals, the lowest loss), or of the last.
        Ctrl-C ends the training early and keeps the best so far.

    Raises:
        TrainingError: the loss is no longer a number, or a checkpoint cannot be written or read.
        KeyboardInterrupt: before the first epoch was done; there is nothing to keep.
    """
    keras.utils.set_random_seed(seed)
    with compute_precision(fastest_precision() if recipe.precision == "auto" else recipe.precision):
        model = NETWORKS[recipe.network](num_classes, batch_norm=recipe.batch_norm, dropout=recipe.dropout)
    trainer = _Trainer(model, recipe, train, _targets(recipe, num_classes, train, answers), rule, seed)
    history, best = trainer.resume(checkpoint)
    interrupted = False
    try:
        for epoch in range(len(history), recipe.epochs):
            result, weights = trainer.run_epoch(epoch, validation, watcher)
            if validation is None or not history or _rank(result) > max(map(_rank, history)):
                best = weights
            history.append(result)
            save_checkpoint(checkpoint, history, trainer.state(), best)
            watcher.epoch(result)
    except KeyboardInterrupt:
        if not history:
            raise
        interrupted = True
    assign_variables(model.weights, best)
    return Fitted(model, tuple(history), interrupted)


def _rank(epoch: Epoch) -> tuple[float, float]:
    assert epoch.validation_accuracy is not None
    assert epoch.validation_loss is not None
    return epoch.validation_accuracy, -epoch.validation_loss


def _targets(recipe: Recipe, num_classes: int, train: LabelledPixels, answers: Float32 | None) -> Float32:
    """What each view of each photograph shall be answered; (number of views, number of photographs, num_classes)."""
    if answers is not None:
        return answers
    smoothing = np.float32(recipe.label_smoothing)
    labels = np.eye(num_classes, dtype=np.float32)[train.class_indices]
    return (labels * (1 - smoothing) + smoothing / num_classes)[None]


class _Trainer:
    def __init__(
        self, model: keras.Model, recipe: Recipe, train: LabelledPixels, targets: Float32, rule: ResizeRule, seed: int
    ) -> None:
        # Targets of one view hold for every view: then each epoch has its own.
        self._num_views = len(targets) if len(targets) > 1 else 0
        self._model, self._recipe, self._targets, self._seed = model, recipe, targets, seed
        self._images, self._view = train.images, training_view(recipe, rule)
        self._batch_size = min(recipe.batch_size, len(train.images))
        self._num_steps = len(train.images) // self._batch_size
        self._optimizer = keras.optimizers.AdamW(
            recipe.learning_rate,
            weight_decay=recipe.weight_decay,
            use_ema=recipe.average_decay > 0,
            ema_momentum=recipe.average_decay or 0.99,
        )
        self._optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
        model.compile(self._optimizer, keras.losses.CategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
        self._optimizer.build(model.trainable_variables)
        self._mean: Variables = []  # of the weights that the last epochs ended with

    def resume(self, checkpoint: Path) -> tuple[list[Epoch], Variables]:
        loaded = load_checkpoint(checkpoint)
        if loaded is None:
            return [], []
        history, state, best = loaded
        num_variables = len(self._variables())
        assign_variables(self._variables(), state[:num_variables])
        self._mean = state[num_variables:]
        return history, best

    def state(self) -> Variables:
        return [*read_variables(self._variables()), *self._mean]

    def _variables(self) -> list[keras.Variable]:
        # Model.variables includes the state of dropout's random streams.
        return [*self._model.variables, *self._optimizer.variables]

    def run_epoch(self, epoch: int, validation: LabelledPixels | None, watcher: Watcher) -> tuple[Epoch, Variables]:
        begun = time.perf_counter()
        loss = accuracy = images_per_s = 0.0  # means over the epoch so far; every batch has the same size
        for step, (images, targets) in enumerate(one_ahead(self._batches(epoch))):
            self._optimizer.learning_rate = _learning_rate(self._recipe, epoch + step / self._num_steps)
            results = self._model.train_on_batch(images, targets, return_dict=True)
            loss += (float(results["loss"]) - loss) / (step + 1)
            accuracy += (float(results["accuracy"]) - accuracy) / (step + 1)
            if not math.isfinite(loss):
                raise TrainingError(f"the loss became {loss} in epoch {epoch + 1}: lower the recipe's learning rate")
            images_per_s = (step + 1) * self._batch_size / (time.perf_counter() - begun)
            watcher.step(epoch, step + 1, self._num_steps, loss, accuracy, images_per_s)
        rate = float(self._optimizer.learning_rate)
        seconds = time.perf_counter() - begun
        with self._averaged(epoch):
            validation_loss, validation_accuracy = self._validate(validation) if validation else (None, None)
            weights = read_variables(self._model.weights)
        result = Epoch(epoch, loss, accuracy, validation_loss, validation_accuracy, rate, seconds, images_per_s)
        return result, weights

    def _batches(self, epoch: int) -> Iterator[tuple[Float32, Float32]]:
        recipe = self._recipe
        random = np.random.default_rng((self._seed, epoch, len(self._images)))
        batches = epoch_batches(
            self._images,
            self._view,
            batch_size=self._batch_size,
            epoch=epoch,
            seed=self._seed,
            num_views=self._num_views,
        )
        for batch in batches:
            inputs = normalise(batch.images, recipe)
            targets = self._targets[batch.views % len(self._targets), batch.photographs]
            yield mix(inputs, targets, recipe.augmentation, random)

    def _validate(self, validation: LabelledPixels) -> tuple[float, float]:
        logits = predict_logits(self._model, validation, self._recipe)
        shifted = logits - logits.max(axis=1, keepdims=True)
        log_probabilities = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
        chosen = log_probabilities[np.arange(len(logits)), validation.class_indices]
        return float(-chosen.mean()), float((logits.argmax(axis=1) == validation.class_indices).mean())

    @contextmanager
    def _averaged(self, epoch: int) -> Iterator[None]:
        # What is measured and kept are the averaged weights; what goes on training are the weights themselves.
        own = read_variables(self._model.weights)
        num_averaged = epoch + 1 - _first_of_mean(self._recipe)
        if num_averaged > 0:
            before = self._mean or own
            self._mean = [mean + (value - mean) / num_averaged for mean, value in zip(before, own, strict=True)]
            assign_variables(self._model.weights, self._mean)
        elif self._recipe.average_decay > 0:
            self._optimizer.finalize_variable_values(self._model.trainable_variables)
        try:
            yield
        finally:
            assign_variables(self._model.weights, own)


def normalise(images: Pixels, recipe: Recipe) -> Float32:
    """uint8 (N, height, width, 3) -> float32, pixel * scale + offset: what the exported network does inside."""
    inputs = images.astype(np.float32)
    inputs *= np.float32(recipe.scale)
    inputs += np.float32(recipe.offset)
    return inputs


def predict_logits(model: keras.Model, squares: LabelledPixels, recipe: Recipe, batch_size: int = 64) -> Float32:
    """Logits, float32 (N, num_classes), of squares as serving makes them."""
    images = np.asarray(squares.images)
    parts = [
        np.asarray(model.predict_on_batch(normalise(images[start : start + batch_size], recipe)))
        for start in range(0, len(images), batch_size)
    ]
    return np.concatenate(parts)


def _first_of_mean(recipe: Recipe) -> int:
    # The first epoch whose weights go into the mean: that and all later ones do.
    return recipe.epochs - round(recipe.epochs * recipe.swa_share)


def _learning_rate(recipe: Recipe, epoch: float) -> float:
    # `epoch` is continuous: the rate moves with every step.
    falls_until = _first_of_mean(recipe)
    if epoch >= falls_until and recipe.swa_share:
        return recipe.swa_learning_rate
    if epoch < recipe.warmup_epochs:
        return recipe.learning_rate * max(epoch, 0.02) / recipe.warmup_epochs
    if not recipe.cosine:
        return recipe.learning_rate
    progress = (epoch - recipe.warmup_epochs) / max(falls_until - recipe.warmup_epochs, 1e-9)
    return recipe.learning_rate * 0.5 * (1 + math.cos(math.pi * progress))
