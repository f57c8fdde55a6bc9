"""Cluster of processes that train one network. Each computes its share of every batch."""

import json
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from service.errors import SettingsError, TrainingError
from service.imaging.pixels import Pixels
from service.training.recipe import AlexNetRecipe, Recipe

TrainStep = Callable[[Pixels, dict[str, Any]], Any]
"""Function that trains on the images and targets of one batch. It returns loss and metrics by name."""

_FORM = '{"cluster": {"worker": ["host:port", "host:port"]}, "task": {"type": "worker", "index": 0}}'


@dataclass(frozen=True, eq=False)
class Cluster:
    """Cluster as one of its processes sees it.

    `process` counts from 0, which is the chief. The chief alone writes. `strategy` reduces over the processes. It is
    None where there is one process.
    """

    process: int = 0
    num_processes: int = 1
    strategy: Any = None

    @property
    def is_chief(self) -> bool:
        """Whether this process writes checkpoints, the run folder and the version."""
        return self.process == 0

    def require_same(self, value: bytes, what: str) -> None:
        """Check that all processes have the same `value`, before they train together.

        Raises `TrainingError`, with the sentences `what`, if one process has another value or has ended.
        """
        if self.strategy is None:
            return
        import tensorflow as tf

        digest = zlib.crc32(value) % 2**24  # the sum of squares must not overflow

        def add_up(pair: Any) -> Any:
            return tf.distribute.get_replica_context().all_reduce("SUM", pair)

        with _ended_processes():
            total, squares = self.strategy.run(add_up, (tf.constant([digest, digest**2], tf.int64),)).numpy().tolist()
        if total**2 != squares * self.num_processes:  # equal if and only if all values are
            raise TrainingError(what)

    def draw_apart(self, network: keras.Model) -> None:
        """Give the dropout of this process a random stream of its own. The chief's is that of one process."""
        for layer in _layers(network):
            if isinstance(layer, keras.layers.Dropout) and layer.rate:
                state = layer.seed_generator.state
                state.assign(state + np.array([self.process, 0], state.dtype))

    def make_step(self, network: keras.Model, batch_size: int) -> TrainStep:
        """Return the training step of a compiled network for this process's share of a batch.

        `batch_size` is that of all processes. Its gradients and metrics are the means over all of them, and so are the
        statistics of batch normalisation. The processes that begin with the same weights keep the same. Raises
        `SettingsError` unless the shares are equal. The step raises `TrainingError` if another process has ended.
        """
        if self.strategy is None:
            return lambda images, targets: dict(network.train_on_batch(images, targets, return_dict=True))
        if batch_size % self.num_processes:
            raise SettingsError(
                f"A batch of {batch_size} has no equal shares for {self.num_processes} processes. Give a multiple with "
                f"--batch-size {batch_size // self.num_processes * self.num_processes or self.num_processes}."
            )
        import tensorflow as tf

        for layer in _layers(network):
            if isinstance(layer, keras.layers.BatchNormalization):
                layer.synchronized = True
        variables, num_processes = network.trainable_variables, self.num_processes
        shown = np.zeros((1, *network.input_shape[1:]), np.uint8)
        guessed = network(shown)  # losses and metrics make their variables now, so that these are of this process alone
        network.compute_loss(shown, guessed, guessed)
        network.compute_metrics(shown, guessed, guessed)

        def differentiate(images: Any, targets: Any) -> Any:
            with tf.GradientTape() as tape:
                outputs = network(images, training=True)
                loss = network.compute_loss(images, targets, outputs)  # Keras divides it by the number of processes
            metrics = {**network.compute_metrics(images, targets, outputs), "loss": loss * num_processes}
            context = tf.distribute.get_replica_context()
            return context.all_reduce("SUM", tape.gradient(loss, variables)), context.all_reduce("MEAN", metrics)

        # Keras' own step reduces its metrics over an axis that they lack, and fails (keras-team/keras#20585). Here the
        # variables belong to no strategy, so validation and export are as in one process. So does the optimizer.
        def learn(images: Any, targets: Any) -> Any:
            gradients, metrics = self.strategy.run(differentiate, (images, targets))
            network.optimizer.apply_gradients(zip(gradients, variables, strict=True))
            return metrics

        step = tf.function(learn, reduce_retracing=True)

        def train_on_share(images: Pixels, targets: dict[str, Any]) -> dict[str, Any]:
            network.reset_metrics()
            with _ended_processes():
                return {name: value.numpy() for name, value in step(images, targets).items()}

        return train_on_share


ALONE = Cluster()
"""One process."""


def open_cluster(
    tf_config: str | None, recipe: Recipe, *, device: str = "auto", is_budgeted: bool = False
) -> Cluster:  # fmt: skip
    """Wait for all processes of the cluster that TF_CONFIG describes, and connect them. None means one process.

    It comes before TensorFlow computes anything. A process trains on one GPU, or with the device "cpu" on none.

    Raises:
        SettingsError: `tf_config` does not describe processes that train, the process sees several GPUs, or the recipe
            or a budget of minutes is not for several processes.
        TrainingError: This process cannot listen on its port, or the others did not come.
    """
    if tf_config is None:
        return ALONE
    addresses, process = _read(tf_config)
    if len(addresses) == 1:
        return ALONE
    if why := _complain(recipe, is_budgeted=is_budgeted):
        raise SettingsError(f"TF_CONFIG lists {len(addresses)} processes. {why} Unset TF_CONFIG to train with one.")
    import tensorflow as tf

    if device == "cpu":
        tf.config.set_visible_devices([], "GPU")
    elif len(gpus := tf.config.get_visible_devices("GPU")) > 1:
        raise SettingsError(
            f"This process sees {len(gpus)} GPUs, and trains on one. Start a process for each, and give it one with "
            "CUDA_VISIBLE_DEVICES."
        )
    spec = tf.train.ClusterSpec({"worker": addresses})
    resolver = tf.distribute.cluster_resolver.SimpleClusterResolver(spec, "", "worker", process, rpc_layer="grpc")
    try:
        strategy = tf.distribute.MultiWorkerMirroredStrategy(resolver)
    except tf.errors.OpError as error:
        why = str(error.message).partition("\n")[0].removesuffix(".")
        raise TrainingError(
            f"Process {process} of {len(addresses)} got no connection. {why}. Start all processes of "
            f"TF_CONFIG, and leave port {addresses[process].rpartition(':')[2]} free."
        ) from error
    return Cluster(process, len(addresses), strategy)


def _read(tf_config: str) -> tuple[list[str], int]:
    """Return the addresses of all processes, the chief's first, and the number of this one."""
    try:
        config = json.loads(tf_config)
        jobs = {str(name): list(map(str, addresses)) for name, addresses in config["cluster"].items()}
        tasks = [(kind, index) for kind in ("chief", "worker") for index in range(len(jobs.get(kind, [])))]
        process = tasks.index((config["task"]["type"], int(config["task"]["index"])))
        if not jobs.keys() <= {"chief", "worker"}:
            raise _unfit(tf_config)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise _unfit(tf_config) from None
    return [jobs[kind][index] for kind, index in tasks], process


def _unfit(tf_config: str) -> SettingsError:
    return SettingsError(
        f"TF_CONFIG is {tf_config!r}. It was expected to look like {_FORM}. Correct it, or unset it to train with one "
        "process."
    )


def _complain(recipe: Recipe, *, is_budgeted: bool) -> str:
    if not isinstance(recipe, AlexNetRecipe):
        return f"The recipe {recipe.name} computes features and tunes layers with one."
    if recipe.teaching:
        return "A teacher answers to one. Leave it out with --teacher none."
    if is_budgeted:
        return "Each would choose its own epochs for --minutes. Give --epochs."
    if keras.backend.backend() != "tensorflow":
        return "They need TensorFlow. Install it, or leave out KERAS_BACKEND."
    return ""


def _layers(model: keras.Model) -> Iterator[keras.layers.Layer]:
    for layer in model.layers:
        yield from _layers(layer) if isinstance(layer, keras.Model) else (layer,)


@contextmanager
def _ended_processes() -> Iterator[None]:
    """Turn TensorFlow's error for a process that has ended into `TrainingError`."""
    import tensorflow as tf

    lost = tf.errors.UnavailableError, tf.errors.AbortedError, tf.errors.CancelledError, tf.errors.InternalError
    try:
        yield
    except (*lost, tf.errors.DeadlineExceededError) as error:
        raise TrainingError(
            "Another process of this training has ended, or cannot be reached. Start all processes again with the same "
            "commands. They go on with the last checkpoint."
        ) from error
