"""Training of one network on JAX, with everything in the GPU's memory.

An epoch of flower_photos takes 60 ms. `fit` hands each batch to the GPU anew, and most of a step is that. Here an epoch
is one compiled call. There is no running average of the weights, and no checkpoint before the end.
"""

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np

from service.data.batches import LabelledPixels
from service.data.views import Views
from service.training.checkpoint import Checkpoint, Epoch, read_variables, save_checkpoint
from service.training.fit import Fitted, validate
from service.training.observer import Observer
from service.training.schedule import Schedule, add_to_mean
from service.training.targets import Targets

_EVERY = 40  # epochs: so often the network is measured on the way


def fit(
    network: keras.Model,
    views: Views,
    targets: Targets,
    schedule: Schedule,
    checkpoint: Path,
    observer: Observer,
    validation: LabelledPixels | None = None,
) -> Fitted:
    """Train a network for Keras on JAX, as `fit.fit` does with the same arguments.

    The network keeps its last weights, or their mean. `views` are numbered. The checkpoint is written at the end. The
    observer sees one epoch in 40 and the last. Raises `TrainingError` if the checkpoint cannot be written. After Ctrl-C
    nothing is kept.
    """
    import jax
    import jax.numpy as jnp

    optimizer = replace(schedule, average_decay=0.0).make_optimizer()
    optimizer.build(network.trainable_variables)
    rate_at = [variable.name for variable in optimizer.variables].index("learning_rate")
    photographs = np.arange(len(views))
    shown: list[dict[str, Any]] = []  # in an epoch: images and targets, neighbours at different views
    for number in range(views.num_views):
        batch = views.batch(photographs, (number + photographs) % views.num_views)
        given = {"images": batch.images, **targets.of(batch)}
        shown.append({name: jnp.asarray(value) for name, value in given.items()})
    batch_size = min(schedule.batch_size, len(views))
    num_steps = len(views) // batch_size

    def loss_of(weights: Any, state: Any, given: Any) -> Any:
        outputs, state = network.stateless_call(weights, state, given["images"], training=True)
        loss = entropy = -(given["logits"] * jax.nn.log_softmax(outputs["logits"])).sum(axis=1).mean()
        accuracy = (outputs["logits"].argmax(axis=1) == given["logits"].argmax(axis=1)).mean()
        if targets.num_features:
            error = ((outputs["features"] - given["features"]) ** 2).sum(axis=1).mean()
            loss += targets.feature_weight * error
        return loss, (state, entropy, accuracy)

    def step(carry: Any, rows_and_rate: Any, epoch_shows: Any) -> Any:
        weights, state, moments = carry
        rows, rate = rows_and_rate
        given = {name: value[rows] for name, value in epoch_shows.items()}
        (_, (state, *found)), slopes = jax.value_and_grad(loss_of, has_aux=True)(weights, state, given)
        moments = [*moments[:rate_at], rate, *moments[rate_at + 1 :]]
        weights, moments = optimizer.stateless_apply(moments, slopes, weights)
        return (weights, state, moments), jnp.stack(found)

    @jax.jit
    def run_epoch(carry: Any, rows: Any, rates: Any, epoch_shows: Any) -> Any:
        return jax.lax.scan(lambda carry, given: step(carry, given, epoch_shows), carry, (rows, rates))

    variables = [*network.trainable_variables, *network.non_trainable_variables]
    groups = network.trainable_variables, network.non_trainable_variables, optimizer.variables
    carry: Any = tuple([variable.value for variable in group] for group in groups)
    mean: list[Any] = []
    history: list[Epoch] = []
    begun, num_timed = time.perf_counter(), 0
    for epoch in range(schedule.epochs):
        order = np.random.default_rng((views.seed, epoch)).permutation(len(views))
        rows = order[: num_steps * batch_size].reshape(num_steps, -1)
        rates = np.array([schedule.rate(epoch + number / num_steps) for number in range(num_steps)], np.float32)
        carry, found = run_epoch(carry, rows, rates, shown[epoch % views.num_views])
        own = [*carry[0], *carry[1]]
        if epoch >= schedule.first_of_mean:
            mean = add_to_mean(mean, own, epoch + 1 - schedule.first_of_mean)
        if epoch % _EVERY == _EVERY - 1 or epoch == schedule.epochs - 1:
            loss, accuracy = np.asarray(found).mean(axis=0).tolist()
            seconds = (time.perf_counter() - begun) / (epoch + 1 - num_timed)  # of each since the last row
            for variable, value in zip(variables, mean or own, strict=True):
                variable.assign(jnp.copy(value))  # what validates gives its buffers away
            validated, speed = validate(network, validation), num_steps * batch_size / seconds
            result = Epoch(epoch, loss, accuracy, validated[0], validated[1], float(rates[-1]), seconds, speed)
            history.append(result)
            observer.epoch(result)
            begun, num_timed = time.perf_counter(), epoch + 1
    save_checkpoint(checkpoint, Checkpoint(tuple(history), (), read_variables(network.weights)))
    return Fitted(tuple(history))
