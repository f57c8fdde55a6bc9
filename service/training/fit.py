"""Training of one network. Each epoch ends with a validation and a checkpoint."""

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
from numpy.typing import NDArray

from service.data.batches import LabelledPixels, epoch_batches
from service.data.stored import Photographs
from service.data.views import Views
from service.errors import TrainingError
from service.training.checkpoint import (
    Checkpoint,
    Epoch,
    Variables,
    are_alike,
    assign_variables,
    load_checkpoint,
    read_variables,
    save_checkpoint,
    unfit_file,
)
from service.training.distributed import ALONE, Cluster
from service.training.observer import Observer
from service.training.schedule import Schedule, add_to_mean
from service.training.targets import Float32, Targets

KNOWN_WEIGHT = 0.5
"""Weight of the cross-entropy of "known" beside that of the classes."""


@dataclass(frozen=True)
class Fitted:
    """End of a training. The network has its weights. `interrupted` means that it ended early."""

    history: tuple[Epoch, ...]
    interrupted: bool = False


def fit(
    network: keras.Model,
    views: Views,
    targets: Targets,
    schedule: Schedule,
    checkpoint: Path | None,
    observer: Observer,
    validation: LabelledPixels | None = None,
    *,
    keeps_best: bool = True,
    cluster: Cluster = ALONE,
) -> Fitted:
    """Train a network, from its checkpoint if there is one.

    Views, order and dropout depend on the seed and the number of the epoch. So a training that was killed and resumed
    ends with the same weights on the CPU. A GPU sums in no fixed order. Ctrl-C ends the training early.

    Args:
        network: Model from uint8 (N, height, width, 3) to the outputs of `targets`. Its weights are changed.
        views: Views of the training photographs.
        targets: Targets of these views.
        schedule: Epochs, batch size and optimizer.
        checkpoint: File that is written after every epoch, or None.
        observer: Observer of steps and epochs.
        validation: Squares to measure on, or None.
        keeps_best: Whether to keep the weights with the best validation accuracy, of equals with the lowest loss.
            Otherwise, or without validation, the last are kept.
        cluster: Processes that train this network together. Each reads the checkpoint, and the chief writes it.

    Raises:
        TrainingError: The loss is no longer a number, a checkpoint cannot be written or read, or another process ended.
        SettingsError: The batches have no equal shares for the processes of the cluster.
        KeyboardInterrupt: Ctrl-C came before the end of the first epoch.
    """
    loop = _Loop(network, views, targets, schedule, cluster)
    history: list[Epoch] = []
    best: Variables = []
    interrupted = False
    if checkpoint and (saved := load_checkpoint(checkpoint)):
        if not loop.resume(saved, is_validated=validation is not None):
            raise unfit_file(checkpoint)
        history, best = list(saved.history), saved.best
        is_done = saved.num_done == schedule.epochs
        left = "nothing of this network is left to do" if is_done else f"going on with epoch {saved.num_done + 1}"
        observer.say(f"{saved.num_done} of {schedule.epochs} epochs are in {checkpoint.parent} from before: {left}.")
    loop.begin()
    try:
        for epoch in range(history[-1].epoch + 1 if history else 0, schedule.epochs):
            result, weights = loop.run_epoch(epoch, validation, observer)
            if validation is None or not keeps_best or not history or _rank(result) > max(map(_rank, history)):
                best = weights
            history.append(result)
            if checkpoint and cluster.is_chief:
                save_checkpoint(checkpoint, Checkpoint(tuple(history), loop.state(), best))
            observer.epoch(result)
    except KeyboardInterrupt:
        if not history:
            raise
        interrupted = True
    assign_variables(network.weights, best)
    return Fitted(tuple(history), interrupted)


def _rank(epoch: Epoch) -> tuple[float, float]:
    assert epoch.validation_accuracy is not None
    assert epoch.validation_loss is not None
    return epoch.validation_accuracy, -epoch.validation_loss


class _Loop:
    """Network, optimizer and mean of weights between two epochs."""

    def __init__(
        self, network: keras.Model, views: Views, targets: Targets, schedule: Schedule, cluster: Cluster
    ) -> None:
        self._network, self._views, self._targets, self._schedule = network, views, targets, schedule
        self._cluster = cluster
        self._batch_size = min(schedule.batch_size, len(views))
        self._num_steps = len(views) // self._batch_size
        self._optimizer = schedule.make_optimizer()
        losses: dict[str, keras.losses.Loss] = {"logits": keras.losses.CategoricalCrossentropy(from_logits=True)}
        weights = {"logits": 1.0}
        if num_features := targets.num_features:
            losses["features"] = keras.losses.MeanSquaredError()
            weights["features"] = targets.feature_weight * num_features  # the mean over features becomes their sum
        if targets.is_known is not None:
            losses["known"], weights["known"] = keras.losses.BinaryCrossentropy(from_logits=True), KNOWN_WEIGHT
        network.compile(self._optimizer, losses, weights, metrics={"logits": ["accuracy"]})
        self._optimizer.build(network.trainable_variables)
        self._train_on = cluster.make_step(network, self._batch_size)
        self._mean: Variables = []  # of the weights that the last epochs ended with

    def resume(self, saved: Checkpoint, *, is_validated: bool) -> bool:
        """Take over the state of a checkpoint. Return False if it is of another training."""
        own = read_variables(self._variables())
        mean = read_variables(self._network.weights) if saved.num_done > self._schedule.first_of_mean else []
        is_finished = saved.num_done == self._schedule.epochs and not saved.state
        is_whole = 0 < saved.num_done <= self._schedule.epochs
        is_whole = is_whole and all((one.validation_loss is not None) == is_validated for one in saved.history)
        is_like = are_alike(saved.best, read_variables(self._network.weights))
        if not (is_whole and is_like and (is_finished or are_alike(saved.state, [*own, *mean]))):
            return False
        if not is_finished:
            assign_variables(self._variables(), saved.state[: len(own)])
            self._mean = saved.state[len(own) :]
        return True

    def state(self) -> Variables:
        return [*read_variables(self._variables()), *self._mean]

    def begin(self) -> None:
        """Check that all processes begin with the same state, and have one order of the photographs."""
        self._cluster.require_same(
            bytes([self._views.is_stored]),
            "Some processes have room for the photographs in memory, and others keep them in files. Equal memory was "
            "expected, as the order depends on it. Give each process the same limit, and start them again.",
        )
        state = b"".join(value.tobytes() for value in self.state())
        self._cluster.require_same(
            state,
            "The processes begin with different weights or checkpoints. One run folder for all was expected. Give all "
            "the same folder with --runs, and start them again.",
        )
        self._cluster.draw_apart(self._network)

    def _variables(self) -> list[keras.Variable]:
        # Model.variables includes the state of dropout's random streams.
        return [*self._network.variables, *self._optimizer.variables]

    def run_epoch(self, epoch: int, validation: LabelledPixels | None, observer: Observer) -> tuple[Epoch, Variables]:
        begun = time.perf_counter()
        loss = accuracy = images_per_s = 0.0  # means over the epoch so far; every batch has the same size
        share = self._cluster.process, self._cluster.num_processes
        batches = epoch_batches(self._views, batch_size=self._batch_size, epoch=epoch, share=share)
        for step, batch in enumerate(batches):
            self._optimizer.learning_rate = self._schedule.rate(epoch + step / self._num_steps)
            results = self._train_on(batch.images, self._targets.of(batch))
            loss += (float(results.get("logits_loss", results["loss"])) - loss) / (step + 1)
            accuracy += (float(results.get("logits_accuracy", results.get("accuracy"))) - accuracy) / (step + 1)
            if not math.isfinite(loss):
                raise TrainingError(f"The loss became {loss} in epoch {epoch + 1}. Lower the recipe's learning rate.")
            images_per_s = (step + 1) * self._batch_size / (time.perf_counter() - begun)
            observer.step(epoch, step + 1, self._num_steps, loss, accuracy, images_per_s)
        rate = float(self._optimizer.learning_rate)
        seconds = time.perf_counter() - begun
        with self._averaged(epoch):
            validation_loss, validation_accuracy = validate(self._network, validation)
            weights = read_variables(self._network.weights)
        result = Epoch(epoch, loss, accuracy, validation_loss, validation_accuracy, rate, seconds, images_per_s)
        return result, weights

    @contextmanager
    def _averaged(self, epoch: int) -> Iterator[None]:
        # The averaged weights are measured and kept. The training goes on with the weights themselves.
        own = read_variables(self._network.weights)
        num_averaged = epoch + 1 - self._schedule.first_of_mean
        if num_averaged > 0:
            self._mean = add_to_mean(self._mean, own, num_averaged)
            assign_variables(self._network.weights, self._mean)
        elif self._schedule.average_decay > 0:
            self._optimizer.finalize_variable_values(self._network.trainable_variables)
        try:
            yield
        finally:
            assign_variables(self._network.weights, own)


def predict(network: keras.Model, images: Photographs, batch_size: int = 64) -> dict[str, Float32]:
    """Return each output of the network, float32 (N, width) or (N,), for N images of one size.

    Memory holds one batch of them.
    """
    starts = range(0, len(images), batch_size)
    parts = [network.predict_on_batch(np.asarray(images[start : start + batch_size])) for start in starts]
    return {name: np.concatenate([np.asarray(part[name]) for part in parts]) for name in parts[0]}


def validate(network: keras.Model, validation: LabelledPixels | None) -> tuple[float, float] | tuple[None, None]:
    """Return the mean cross-entropy and the accuracy on squares, or twice None without any."""
    if validation is None:
        return None, None
    return measure_logits(predict(network, validation.images)["logits"], validation.class_indices)


def measure_logits(logits: Float32, class_indices: NDArray[np.int64]) -> tuple[float, float]:
    """Return the mean cross-entropy and the accuracy of logits, float32 (N, num_classes), for classes, int64 (N,)."""
    shifted = logits - logits.max(axis=1, keepdims=True)
    log_probabilities = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    chosen = log_probabilities[np.arange(len(logits)), class_indices]
    return float(-chosen.mean()), float((logits.argmax(axis=1) == class_indices).mean())
