"""A recipe with everything in a GPU's memory: fifty milliseconds an epoch, so that thousands of them take minutes.

    KERAS_BACKEND=jax python benchmarks/in_memory.py learn FOLDER RUN [--recipe patient]
    python benchmarks/in_memory.py publish FOLDER RUN [--name flowers]

`flowers train` hands each batch to the GPU anew, and most of a step is that. Here the views of a recipe with a teacher
and their lesson, both made as there, lie on the GPU, and an epoch is one compiled call: the same views, targets,
network, losses, optimizer, schedule and mean of weights, for Keras on JAX. `learn` needs no TensorFlow, which may be
missing for the GPU, and leaves the weights of both networks in RUN; `publish` calibrates, exports, evaluates and
publishes them as `flowers train` does, on any machine with the same photographs. The recipe `patient` takes 15 GB.

An earlier form of this trained the shipped version. Its views were blended, or pasted into, with one of six of
another photograph's instead of one of their own; and whole epochs were unmixed instead of as many single views. Its
photographs, those it was validated on as well, had been made smaller for the journey: the shorter side at 256 pixels,
as training has it, in AVIF. There is no running average of the weights here, which `flowers train` evaluates before
the mean of the last epochs begins.
"""

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import keras
import numpy as np

from service.data.batches import LabelledPixels, load_squares, load_whole
from service.data.check import DataCheck, check_folder
from service.data.folder import read_folder
from service.data.split import Part, Split, split_photographs
from service.data.views import Views
from service.imaging.pixels import ImageLimits, ResizeRule
from service.networks.alexnet import NETWORKS
from service.networks.backbones import load_backbone
from service.training.augment import training_view
from service.training.calibrate import calibrate
from service.training.checkpoint import Epoch
from service.training.fit import first_of_mean, in_training, learning_rate, make_optimizer, predict_logits, validate
from service.training.precision import compute_precision
from service.training.recipe import Augmentation, Recipe, find_recipe
from service.training.teach import Lesson, prepare_lesson

RULE, LIMITS = ResizeRule(), ImageLimits()
SEED = 0


def learn(
    recipe: Recipe, num_classes: int, views: Views, lesson: Lesson, validation: LabelledPixels | None
) -> tuple[keras.Model, list[Epoch]]:
    """The network that the recipe trains, with the mean of its weights, and every twentieth epoch on the way."""
    import jax
    import jax.numpy as jnp

    assert lesson.features is not None
    keras.utils.set_random_seed(SEED)
    with compute_precision("mixed_bfloat16" if recipe.precision == "auto" else recipe.precision):
        network = NETWORKS[recipe.network](num_classes, batch_norm=recipe.batch_norm, dropout=recipe.dropout)
    model = in_training(network, recipe, lesson.features.shape[-1])
    optimizer = make_optimizer(replace(recipe, average_decay=0.0))
    optimizer.build(model.trainable_variables)
    rate_at = [variable.name for variable in optimizer.variables].index("learning_rate")
    photographs = np.arange(len(views))
    pixels, answers, features = [], [], []
    for number in range(views.num_views):  # what an epoch shows: neighbours at different views
        seen = (number + photographs) % views.num_views
        pixels.append(jnp.asarray(views.batch(photographs, seen).images))
        answers.append(jnp.asarray(lesson.answers[seen, photographs]))
        features.append(jnp.asarray(lesson.features[seen, photographs], jnp.float32))
    num_steps = len(views) // recipe.batch_size

    def loss_of(weights: Any, state: Any, images: Any, answer: Any, feature: Any) -> Any:
        outputs, state = model.stateless_call(weights, state, images, training=True)
        entropy = -(answer * jax.nn.log_softmax(outputs["logits"])).sum(axis=1).mean()
        accuracy = (outputs["logits"].argmax(axis=1) == answer.argmax(axis=1)).mean()
        error = ((outputs["features"] - feature) ** 2).sum(axis=1).mean()
        return entropy + recipe.feature_weight * error, (state, entropy, accuracy)

    def step(carry: Any, given: Any, images: Any, answer: Any, feature: Any) -> Any:
        weights, state, moments = carry
        rows, rate = given
        batch = images[rows], answer[rows], feature[rows]
        (_, (state, *found)), slopes = jax.value_and_grad(loss_of, has_aux=True)(weights, state, *batch)
        moments = [*moments[:rate_at], rate, *moments[rate_at + 1 :]]
        weights, moments = optimizer.stateless_apply(moments, slopes, weights)
        return (weights, state, moments), jnp.stack(found)

    @jax.jit
    def run_epoch(carry: Any, rows: Any, rates: Any, *view: Any) -> Any:
        return jax.lax.scan(lambda carry, given: step(carry, given, *view), carry, (rows, rates))

    variables = [*model.trainable_variables, *model.non_trainable_variables]
    groups = model.trainable_variables, model.non_trainable_variables, optimizer.variables
    carry: Any = tuple([variable.value for variable in group] for group in groups)
    mean: list[Any] = []
    history = []
    for epoch in range(recipe.epochs):
        begun = time.perf_counter()
        shown = epoch % views.num_views
        order = np.random.default_rng((SEED, epoch)).permutation(len(views))
        rows = order[: num_steps * recipe.batch_size].reshape(num_steps, -1)
        rates = np.array([learning_rate(recipe, epoch + n / num_steps) for n in range(num_steps)], np.float32)
        carry, found = run_epoch(carry, rows, rates, pixels[shown], answers[shown], features[shown])
        own = [*carry[0], *carry[1]]
        num_averaged = epoch + 1 - first_of_mean(recipe)
        if num_averaged > 0:
            mean = [_averaged(a, b, num_averaged) for a, b in zip(mean or own, own, strict=True)]
        if epoch % 20 == 19 or epoch == recipe.epochs - 1:
            loss, accuracy = np.asarray(found).mean(axis=0).tolist()
            seconds = time.perf_counter() - begun
            for variable, value in zip(variables, mean or own, strict=True):
                variable.assign(value)
            validation_loss, validation_accuracy = validate(network, validation, recipe)
            images_per_s = num_steps * recipe.batch_size / seconds
            row = Epoch(
                epoch, loss, accuracy, validation_loss, validation_accuracy, float(rates[-1]), seconds, images_per_s
            )
            history.append(row)
            print(row, flush=True)
    return network, history


def _averaged(mean: Any, value: Any, count: int) -> Any:
    """The mean of `count` values, the last of them `value`; the state of a random stream is no number to average."""
    return mean + (value - mean) / count if mean.dtype == np.float32 else value


def learn_both(folder: Path, run: Path, recipe: Recipe) -> None:
    """Train the first network, to be calibrated, and the second, on the validation part as well, to be published."""
    check, split = read(folder)
    run.mkdir(parents=True, exist_ok=True)
    validation = load_squares(split.photographs["validation"], check.class_names, RULE, LIMITS)
    rounds: tuple[tuple[str, tuple[Part, ...]], ...] = (("network", ("train",)), ("refit", ("train", "validation")))
    for name, parts in rounds:
        photographs = [photograph for part in parts for photograph in split.photographs[part]]
        whole = load_whole(photographs, check.class_names, RULE.shorter_side, LIMITS)
        views = Views(whole.images, training_view(recipe, RULE), SEED, recipe.num_views)
        unseen = validation if name == "network" else None
        lesson = prepare_lesson(
            load_backbone(recipe.teacher), recipe, len(check.class_names), whole, views, unseen,
            rule=RULE, seed=SEED, cache=run / f"{name}-lesson.npz", progress=lambda *done: print(*done, flush=True),
        )  # fmt: skip
        network, history = learn(recipe, len(check.class_names), views, lesson, unseen)
        np.savez(run / f"{name}.npz", *network.get_weights())
        learned = {
            "recipe": asdict(recipe),
            "teacher_accuracy": lesson.accuracy,
            "history": [asdict(epoch) for epoch in history],
        }
        (run / f"{name}.json").write_text(json.dumps(learned, indent=1) + "\n", encoding="utf-8")


def publish(folder: Path, run: Path, name: str, store: Path) -> None:
    """Publish what `learn_both` left in `run`."""
    from service.training.train import publish_network  # knows TensorFlow
    from service.training.version_files import TrainedNetwork

    learned = json.loads((run / "network.json").read_text(encoding="utf-8"))
    recipe = Recipe(**learned["recipe"] | {"augmentation": Augmentation(**learned["recipe"]["augmentation"])})
    history = [Epoch(**row) for row in learned["history"]]
    check, split = read(folder)
    validation, unseen = (
        load_squares(split.photographs[part], check.class_names, RULE, LIMITS) for part in ("validation", "test")
    )
    first, second = (
        load_network(run / f"{which}.npz", recipe, len(check.class_names)) for which in ("network", "refit")
    )
    described = {
        **asdict(recipe), "seed": SEED, "device": "gpu", "epochs_done": history[-1].epoch + 1,
        "teacher_accuracy": learned["teacher_accuracy"],
    }  # fmt: skip
    calibration = calibrate(predict_logits(first, validation, recipe), validation.class_indices)
    trained = TrainedNetwork(name, second, recipe, described, calibration, check, split, validation, unseen)
    version, test = publish_network(trained, store, run, history)
    print(f"{name} {version}: {test.num_correct} of {test.num_photographs} on the test part")


def load_network(path: Path, recipe: Recipe, num_classes: int) -> keras.Model:
    """The trained network whose weights were saved, batch normalisation folded."""
    from service.training.train import plain_network

    network = NETWORKS[recipe.network](num_classes, batch_norm=recipe.batch_norm, dropout=recipe.dropout)
    with np.load(path, allow_pickle=False) as file:
        network.set_weights([file[f"arr_{number}"] for number in range(len(file.files))])
    return plain_network(network, recipe)


def read(folder: Path) -> tuple[DataCheck, Split]:
    """The photographs, and the parts that `flowers train` divides them into."""
    check = check_folder(read_folder(folder), LIMITS)
    return check, split_photographs(check, SEED)


def main(arguments: Sequence[str] | None = None) -> None:
    """Learn, or publish what was learned."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("verb", choices=("learn", "publish"))
    parser.add_argument("folder", type=Path, help="the photographs, one folder per class")
    parser.add_argument("run", type=Path, help="where the weights are left, and found")
    parser.add_argument("--recipe", default="patient")
    parser.add_argument("--epochs", type=int, help="instead of the recipe's")
    parser.add_argument("--name", default="flowers", help="of the model that is published")
    parser.add_argument("--store", type=Path, default=Path("model_store"))
    asked = parser.parse_args(arguments)
    if asked.verb == "learn":
        recipe = find_recipe(asked.recipe)
        learn_both(asked.folder, asked.run, replace(recipe, epochs=asked.epochs or recipe.epochs))
    else:
        publish(asked.folder, asked.run, asked.name, asked.store)


if __name__ == "__main__":
    main()
