"""A recipe with everything in a GPU's memory: sixty milliseconds an epoch, so that thousands of them take minutes.

    KERAS_BACKEND=jax python -m service.training.fit_on_device learn FOLDER RUN [--recipe patient]
        [--networks whole fold-0 ...]
    python -m service.training.fit_on_device publish FOLDER RUN [--name flowers]

`flowers train` hands each batch to the GPU anew, and most of a step is that. Here the views of a recipe with a teacher
and their lesson, both made as there, lie on the GPU, and an epoch is one compiled call: the same views, targets,
network, losses, optimizer, schedule and mean of weights, for Keras on JAX. There is no running average of the weights,
which `flowers train` evaluates before the mean of the last epochs begins.

`learn` trains `whole`, which learns from training and validation part and is what is published, and four networks for
the cross-validation, `fold-0` to `fold-3`: each of them, and each one's teacher, learns from three quarters of these
photographs and is asked about the fourth. Temperature and threshold come from all answers together. `learn` needs no
TensorFlow, which may be missing for the GPU, and leaves weights in RUN; the recipe `patient` takes 15 GB of the GPU's
memory, and up to 60 GB of the machine's, where the next network's views are made meanwhile. `publish` calibrates,
exports, evaluates and publishes as `flowers train` does, on any machine with the same photographs.

The shipped version was made so (`results/in_memory-patient.json`), but for one thing: the photographs had been made
smaller for the journey to the GPU, the shorter side at 256 pixels, as training has it, in AVIF. Of the 2,777 as they
are the four networks know 2,527, 91.0 %, each of those that it had not learned; of the smaller ones their teachers
95.1 %. The weights of these four had been rounded to float16 for the journey back. With a shorter side of anything from
224 to 280 pixels before the centre square is cut, `fold-0` knows 625 to 633 of its 695 (counted by hand): 256 stays.

Up to three processes may share a GPU, each with networks of its own (`--networks`): three took 51 GB of its memory and
48 of the machine's. Together they showed an H200 no more photographs a second, 44,000, than `whole` had been alone:
what they save is the time in which views are made. A common cache of compiled programs (JAX_COMPILATION_CACHE_DIR)
ended two in errors of CUDA.

The version before and the trainings in `results/in_memory.json` are of an earlier form. It had no cross-validation, but
one network that had not learned the validation part. Where two photographs are mixed, the other one's view was one of
six instead of a new one; and whole epochs were unmixed instead of as many single views.
"""

import argparse
import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import service  # noqa: F401 - before Keras, whose files it keeps in the cache folder

# isort: split
import keras
import numpy as np
from numpy.typing import NDArray

from service.data.batches import LabelledPixels, load_squares, load_whole, made_ahead
from service.data.check import CheckedPhotograph, DataCheck, check_folder
from service.data.folder import read_folder
from service.data.split import Split, split_photographs
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
from service.training.view_makers import MadeViews, ViewMakers

RULE, LIMITS = ResizeRule(), ImageLimits()
SEED, NUM_FOLDS = 0, 4
NAMES = ("whole", *(f"fold-{number}" for number in range(NUM_FOLDS)))
_EVERY = 40  # epochs: so often the network is measured on the way


def learn(
    recipe: Recipe, num_classes: int, views: Views, lesson: Lesson, validation: LabelledPixels | None
) -> tuple[keras.Model, list[Epoch]]:
    """The network that the recipe trains, with the mean of its weights, and its figures on the way."""
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
    history: list[Epoch] = []
    begun, num_timed = time.perf_counter(), 0
    for epoch in range(recipe.epochs):
        shown = epoch % views.num_views
        order = np.random.default_rng((SEED, epoch)).permutation(len(views))
        rows = order[: num_steps * recipe.batch_size].reshape(num_steps, -1)
        rates = np.array([learning_rate(recipe, epoch + n / num_steps) for n in range(num_steps)], np.float32)
        carry, found = run_epoch(carry, rows, rates, pixels[shown], answers[shown], features[shown])
        own = [*carry[0], *carry[1]]
        num_averaged = epoch + 1 - first_of_mean(recipe)
        if num_averaged > 0:
            mean = [_averaged(a, b, num_averaged) for a, b in zip(mean or own, own, strict=True)]
        if epoch % _EVERY == _EVERY - 1 or epoch == recipe.epochs - 1:
            loss, accuracy = np.asarray(found).mean(axis=0).tolist()
            seconds = (time.perf_counter() - begun) / (epoch + 1 - num_timed)  # of each since the last row
            for variable, value in zip(variables, mean or own, strict=True):
                variable.assign(jnp.copy(value))  # what validates gives its buffers away
            validation_loss, validation_accuracy = validate(network, validation, recipe)
            images_per_s = num_steps * recipe.batch_size / seconds
            row = Epoch(
                epoch, loss, accuracy, validation_loss, validation_accuracy, float(rates[-1]), seconds, images_per_s
            )
            history.append(row)
            print(row, flush=True)
            begun, num_timed = time.perf_counter(), epoch + 1
    return network, history


def _averaged(mean: Any, value: Any, count: int) -> Any:
    """The mean of `count` values, the last of them `value`; the state of a random stream is no number to average."""
    return mean + (value - mean) / count if mean.dtype == np.float32 else value


@dataclass(frozen=True)
class Round:
    """One training: which photographs the network learns from, and which it is asked about afterwards, if any."""

    name: str
    learned: tuple[CheckedPhotograph, ...]
    unseen: tuple[CheckedPhotograph, ...]


def rounds(check: DataCheck, split: Split) -> list[Round]:
    """The training that is published, then those of the cross-validation. Near-duplicates are in one fold together."""
    known = (*split.photographs["train"], *split.photographs["validation"])
    first_of = {photograph: group[0] for group in check.near_duplicates for photograph in group}

    def fold_of(photograph: CheckedPhotograph) -> int:
        digest = hashlib.sha256(f"{SEED}:fold:{first_of.get(photograph, photograph).pixels_digest}".encode()).digest()
        return int.from_bytes(digest[:8]) % NUM_FOLDS

    folds = [fold_of(photograph) for photograph in known]
    parts = [tuple(one for one, own in zip(known, folds, strict=True) if own == fold) for fold in range(NUM_FOLDS)]
    others = [tuple(one for one, own in zip(known, folds, strict=True) if own != fold) for fold in range(NUM_FOLDS)]
    if not all(parts):
        raise SystemExit(f"{len(known)} photographs are too few for {NUM_FOLDS} folds: one of them has none.")
    return [Round(*of) for of in zip(NAMES, (known, *others), ((), *parts), strict=True)]


def learn_all(trainings: Sequence[Round], check: DataCheck, recipe: Recipe, run: Path) -> None:
    """Train the networks one after the other; the views of the next two are made meanwhile."""
    known = list(dict.fromkeys(photograph for one in trainings for photograph in one.learned))
    whole = load_whole(known, check.class_names, RULE.shorter_side, LIMITS)
    selections = [np.array([known.index(photograph) for photograph in one.learned]) for one in trainings]
    with ViewMakers(whole.images, training_view(recipe, RULE)) as makers:

        def make(selection: NDArray[np.int64]) -> MadeViews:
            return MadeViews(makers, selection, SEED, recipe.num_views)

        for one, selection, views in zip(trainings, selections, made_ahead(make, selections, workers=1), strict=True):
            learned = LabelledPixels([whole.images[place] for place in selection], whole.class_indices[selection])
            train_round(one, learned, views, check, recipe, run)


def train_round(one: Round, learned: LabelledPixels, views: Views, check: DataCheck, recipe: Recipe, run: Path) -> None:
    """Train one network, and leave its weights and its history in `run`."""
    num_classes = len(check.class_names)
    unseen = load_squares(one.unseen, check.class_names, RULE, LIMITS) if one.unseen else None
    lesson = prepare_lesson(
        load_backbone(recipe.teacher), recipe, num_classes, learned, views, unseen,
        rule=RULE, seed=SEED, cache=run / f"{one.name}-lesson.npz", progress=lambda *done: print(*done, flush=True),
    )  # fmt: skip
    print(f"{one.name}: the teacher is right on {lesson.accuracy}", flush=True)
    network, history = learn(recipe, num_classes, views, lesson, unseen)
    np.savez(run / f"{one.name}.npz", *network.get_weights())
    described = {
        "recipe": asdict(recipe),
        "data_digest": check.digest,
        "teacher_accuracy": lesson.accuracy,
        "history": [asdict(epoch) for epoch in history],
    }
    (run / f"{one.name}.json").write_text(json.dumps(described, indent=1) + "\n", encoding="utf-8")


def publish(folder: Path, run: Path, name: str, store: Path) -> None:
    """Publish what the trainings left in `run`."""
    from service.training.export.version import TrainedNetwork
    from service.training.train import publish_network  # knows TensorFlow

    check, split = read(folder)
    whole, *folds = rounds(check, split)
    learned = {one.name: json.loads((run / f"{one.name}.json").read_text(encoding="utf-8")) for one in (whole, *folds)}
    given = learned["whole"]["recipe"]
    if any((one["recipe"], one["data_digest"]) != (given, learned["whole"]["data_digest"]) for one in learned.values()):
        raise SystemExit(f"The networks in {run} are not of one recipe and the same photographs: learn them anew.")
    recipe = Recipe(**given | {"augmentation": Augmentation(**given["augmentation"])})
    logits, class_indices = [], []
    for fold in folds:
        unseen = load_squares(fold.unseen, check.class_names, RULE, LIMITS)
        logits.append(predict_logits(load_network(run / f"{fold.name}.npz", recipe, check), unseen, recipe))
        class_indices.append(unseen.class_indices)
        print(f"{fold.name}: {(logits[-1].argmax(axis=1) == unseen.class_indices).mean():.1%} of {len(fold.unseen)}")
    calibration = calibrate(np.concatenate(logits), np.concatenate(class_indices), "cross-validation")
    accuracies = [learned[fold.name]["teacher_accuracy"] for fold in folds]
    described = {
        **asdict(recipe), "seed": SEED, "device": "gpu", "epochs_done": recipe.epochs, "folds": NUM_FOLDS,
        "teacher_accuracy": float(np.average(accuracies, weights=[len(fold.unseen) for fold in folds])),
    }  # fmt: skip
    network = load_network(run / "whole.npz", recipe, check)
    test = load_squares(split.photographs["test"], check.class_names, RULE, LIMITS)
    trained = TrainedNetwork(name, network, recipe, described, calibration, check, split, test)
    histories = [[Epoch(**row) for row in learned[fold.name]["history"]] for fold in folds]
    history = [mean_epoch(rows) for rows in zip(*histories, strict=True)]
    version, measured = publish_network(trained, store, run, history)
    print(f"{name} {version}: {measured.num_correct} of {measured.num_photographs} on the test part")


def mean_epoch(rows: Sequence[Epoch]) -> Epoch:
    """The same epoch of several trainings, as one row of figures."""
    means = {key: float(np.mean([getattr(row, key) for row in rows])) for key in asdict(rows[0]) if key != "epoch"}
    return Epoch(epoch=rows[0].epoch, **means)


def load_network(path: Path, recipe: Recipe, check: DataCheck) -> keras.Model:
    """The trained network whose weights were saved, batch normalisation folded."""
    from service.training.train import plain_network

    network = NETWORKS[recipe.network](len(check.class_names), batch_norm=recipe.batch_norm, dropout=recipe.dropout)
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
    parser.add_argument("--networks", nargs="+", choices=NAMES, default=NAMES, help="which to learn, instead of all")
    parser.add_argument("--name", default="flowers", help="of the model that is published")
    parser.add_argument("--store", type=Path, default=Path("model_store"))
    asked = parser.parse_args(arguments)
    if asked.verb == "learn":
        recipe = find_recipe(asked.recipe)
        check, split = read(asked.folder)
        asked.run.mkdir(parents=True, exist_ok=True)
        wanted = [one for one in rounds(check, split) if one.name in asked.networks]
        learn_all(wanted, check, replace(recipe, epochs=asked.epochs or recipe.epochs), asked.run)
    else:
        publish(asked.folder, asked.run, asked.name, asked.store)


if __name__ == "__main__":
    main()
