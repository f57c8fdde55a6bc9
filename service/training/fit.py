"""Recipe + photographs -> trained network: one epoch after the other, each ended by validation and a checkpoint."""

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import keras
import numpy as np
from numpy.typing import NDArray

from service.data.batches import LabelledPixels, epoch_batches
from service.data.views import Batch, Views
from service.errors import TrainingError
from service.imaging.pixels import Pixels
from service.networks.alexnet import HIDDEN_LAYER, NETWORKS
from service.training.checkpoint import (
    Epoch,
    Variables,
    are_alike,
    are_validated,
    assign_variables,
    describe_resumed,
    load_checkpoint,
    read_variables,
    save_checkpoint,
    unfit_file,
)
from service.training.precision import compute_precision, fastest_precision
from service.training.recipe import Recipe
from service.training.teach import Lesson

Float32 = NDArray[np.float32]

_VALIDATION_BATCH = 64


class Watcher(Protocol):
    """Observer of a training, such as a progress bar."""

    def step(self, epoch: int, step: int, num_steps: int, loss: float, accuracy: float, images_per_s: float) -> None:
        """One step is done; loss and accuracy are means over the epoch so far."""

    def epoch(self, result: Epoch) -> None:
        """One epoch is done, validation included, and its checkpoint is written."""

    def say(self, sentence: str) -> None:
        """Something happens that is worth a line of its own."""


@dataclass(frozen=True)
class Fitted:
    """A trained network as built for training, with the weights of its best epoch, and how it got there."""

    model: keras.Model
    history: tuple[Epoch, ...]
    interrupted: bool


def fit(
    recipe: Recipe,
    num_classes: int,
    views: Views,
    class_indices: NDArray[np.int64],
    validation: LabelledPixels | None,
    *,
    seed: int,
    checkpoint: Path,
    watcher: Watcher,
    lesson: Lesson | None = None,
) -> Fitted:
    """Train by `recipe`, from `checkpoint` if it exists.

    Views, order and dropout depend on `seed` and on the epoch's number alone, so a training that was killed and run
    again ends with the same weights as one that was not (on the CPU; a GPU sums in no fixed order).

    Args:
        recipe: what to do.
        num_classes: width of the last layer.
        views: of the training photographs, as `training_view` makes them.
        class_indices: int64 (N,), of the same photographs.
        validation: squares as serving makes them; chooses the best epoch. None: the last epoch is taken.
        seed: of initial weights, order and dropout.
        checkpoint: file that is written after every epoch.
        watcher: told after each step and epoch.
        lesson: what a teacher says of `views`: the targets in place of the labels.

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
    trainer = _Trainer(model, recipe, views, np.eye(num_classes, dtype=np.float32)[class_indices], lesson, seed)
    history, best = trainer.resume(checkpoint, is_validated=validation is not None)
    interrupted = False
    if history:
        watcher.say(describe_resumed(len(history), recipe.epochs, checkpoint.parent))
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


def in_training(model: keras.Model, recipe: Recipe, num_features: int) -> keras.Model:
    """The network behind its normalisation, as it is trained.

    Args:
        model: float32 (N, 224, 224, 3) to logits (N, num_classes), with a layer `HIDDEN_LAYER`.
        recipe: says the normalisation.
        num_features: of a teacher, that the hidden layer shall foretell; 0: there are none.

    Returns:
        A model from uint8 (N, 224, 224, 3) to {"logits": (N, num_classes), "features": (N, num_features)}, the latter
        if there are any; it shares the weights of `model`.
    """
    images = keras.Input(model.input_shape[1:], dtype="uint8", name="pixels")
    normalised = keras.layers.Rescaling(recipe.scale, recipe.offset, dtype="float32")(images)
    hidden = model.get_layer(HIDDEN_LAYER).output
    logits, activations = keras.Model(model.input, [model.output, hidden], name=model.name)(normalised)
    outputs = {"logits": logits}
    if num_features:
        outputs["features"] = keras.layers.Dense(num_features, kernel_initializer="zeros", dtype="float32")(activations)
    return keras.Model(images, outputs)


def make_optimizer(recipe: Recipe) -> keras.optimizers.AdamW:
    """AdamW with decoupled weight decay and a running average of the weights, as the recipe says."""
    optimizer = keras.optimizers.AdamW(
        recipe.learning_rate,
        weight_decay=recipe.weight_decay,
        use_ema=recipe.average_decay > 0,
        ema_momentum=recipe.average_decay or 0.99,
    )
    optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    return optimizer


class _Trainer:
    def __init__(
        self, model: keras.Model, recipe: Recipe, views: Views, labels: Float32, lesson: Lesson | None, seed: int
    ) -> None:
        self._model, self._recipe, self._seed = model, recipe, seed
        self._views, self._labels, self._lesson = views, labels, lesson
        self._batch_size = min(recipe.batch_size, len(views))
        self._num_steps = len(views) // self._batch_size
        self._optimizer = make_optimizer(recipe)
        losses: dict[str, keras.losses.Loss] = {"logits": keras.losses.CategoricalCrossentropy(from_logits=True)}
        weights = {"logits": 1.0}
        num_features = 0
        if lesson is not None and lesson.features is not None:
            num_features = lesson.features.shape[-1]
            losses["features"] = keras.losses.MeanSquaredError()
            weights["features"] = recipe.feature_weight * num_features  # the mean over features becomes their sum
        self._trained = in_training(model, recipe, num_features)
        self._trained.compile(self._optimizer, losses, weights, metrics={"logits": ["accuracy"]})
        self._optimizer.build(self._trained.trainable_variables)
        self._mean: Variables = []  # of the weights that the last epochs ended with

    def resume(self, checkpoint: Path, *, is_validated: bool) -> tuple[list[Epoch], Variables]:
        loaded = load_checkpoint(checkpoint)
        if loaded is None:
            return [], []
        history, state, best = loaded
        own = read_variables(self._variables())
        mean = read_variables(self._trained.weights) if len(history) > first_of_mean(self._recipe) else []
        is_whole = 0 < len(history) <= self._recipe.epochs and are_validated(history, is_validated)
        if not (is_whole and are_alike(state, [*own, *mean]) and are_alike(best, read_variables(self._model.weights))):
            raise unfit_file(checkpoint)
        assign_variables(self._variables(), state[: len(own)])
        self._mean = state[len(own) :]
        return history, best

    def state(self) -> Variables:
        return [*read_variables(self._variables()), *self._mean]

    def _variables(self) -> list[keras.Variable]:
        # Model.variables includes the state of dropout's random streams.
        return [*self._trained.variables, *self._optimizer.variables]

    def run_epoch(self, epoch: int, validation: LabelledPixels | None, watcher: Watcher) -> tuple[Epoch, Variables]:
        begun = time.perf_counter()
        loss = accuracy = images_per_s = 0.0  # means over the epoch so far; every batch has the same size
        batches = epoch_batches(self._views, batch_size=self._batch_size, epoch=epoch, seed=self._seed)
        for step, batch in enumerate(batches):
            self._optimizer.learning_rate = learning_rate(self._recipe, epoch + step / self._num_steps)
            results = self._trained.train_on_batch(batch.images, self._targets(batch), return_dict=True)
            loss += (float(results.get("logits_loss", results["loss"])) - loss) / (step + 1)
            accuracy += (float(results.get("logits_accuracy", results.get("accuracy"))) - accuracy) / (step + 1)
            if not math.isfinite(loss):
                raise TrainingError(f"the loss became {loss} in epoch {epoch + 1}: lower the recipe's learning rate")
            images_per_s = (step + 1) * self._batch_size / (time.perf_counter() - begun)
            watcher.step(epoch, step + 1, self._num_steps, loss, accuracy, images_per_s)
        rate = float(self._optimizer.learning_rate)
        seconds = time.perf_counter() - begun
        with self._averaged(epoch):
            validation_loss, validation_accuracy = validate(self._model, validation, self._recipe)
            weights = read_variables(self._model.weights)
        result = Epoch(epoch, loss, accuracy, validation_loss, validation_accuracy, rate, seconds, images_per_s)
        return result, weights

    def _targets(self, batch: Batch) -> dict[str, NDArray[Any]]:
        if self._lesson is None:
            smoothing = np.float32(self._recipe.label_smoothing)
            share = batch.shares[:, None]
            labels = share * self._labels[batch.photographs] + (1 - share) * self._labels[batch.others]
            return {"logits": labels * (1 - smoothing) + smoothing / labels.shape[1]}
        targets: dict[str, NDArray[Any]] = {"logits": self._lesson.answers[batch.views, batch.photographs]}
        if self._lesson.features is not None:
            targets["features"] = self._lesson.features[batch.views, batch.photographs].astype(np.float32)
        return targets

    @contextmanager
    def _averaged(self, epoch: int) -> Iterator[None]:
        # What is measured and kept are the averaged weights; what goes on training are the weights themselves.
        own = read_variables(self._trained.weights)
        num_averaged = epoch + 1 - first_of_mean(self._recipe)
        if num_averaged > 0:
            before = self._mean or own
            self._mean = [mean + (value - mean) / num_averaged for mean, value in zip(before, own, strict=True)]
            assign_variables(self._trained.weights, self._mean)
        elif self._recipe.average_decay > 0:
            self._optimizer.finalize_variable_values(self._trained.trainable_variables)
        try:
            yield
        finally:
            assign_variables(self._trained.weights, own)


def normalise(images: Pixels, recipe: Recipe) -> Float32:
    """uint8 (N, height, width, 3) -> float32, pixel * scale + offset: what the exported network does inside."""
    inputs = images.astype(np.float32)
    inputs *= np.float32(recipe.scale)
    inputs += np.float32(recipe.offset)
    return inputs


def predict_logits(model: keras.Model, squares: LabelledPixels, recipe: Recipe) -> Float32:
    """Logits, float32 (N, num_classes), of squares as serving makes them."""
    images = np.asarray(squares.images)
    parts = [
        np.asarray(model.predict_on_batch(normalise(images[start : start + _VALIDATION_BATCH], recipe)))
        for start in range(0, len(images), _VALIDATION_BATCH)
    ]
    return np.concatenate(parts)


def validate(
    model: keras.Model, validation: LabelledPixels | None, recipe: Recipe
) -> tuple[float, float] | tuple[None, None]:
    """Mean cross-entropy and accuracy on squares as serving makes them; of none, neither."""
    if validation is None:
        return None, None
    logits = predict_logits(model, validation, recipe)
    shifted = logits - logits.max(axis=1, keepdims=True)
    log_probabilities = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    chosen = log_probabilities[np.arange(len(logits)), validation.class_indices]
    return float(-chosen.mean()), float((logits.argmax(axis=1) == validation.class_indices).mean())


def first_of_mean(recipe: Recipe) -> int:
    """The first epoch whose weights go into the mean: that and all later ones do."""
    return recipe.epochs - round(recipe.epochs * recipe.swa_share)


def learning_rate(recipe: Recipe, epoch: float) -> float:
    """The rate at `epoch`, which is continuous: the rate moves with every step."""
    falls_until = first_of_mean(recipe)
    if epoch >= falls_until and recipe.swa_share:
        return recipe.swa_learning_rate
    if epoch < recipe.warmup_epochs:
        return recipe.learning_rate * max(epoch, 0.02) / recipe.warmup_epochs
    if not recipe.cosine:
        return recipe.learning_rate
    progress = (epoch - recipe.warmup_epochs) / max(falls_until - recipe.warmup_epochs, 1e-9)
    return recipe.learning_rate * 0.5 * (1 + math.cos(math.pi * progress))
