"""Training of AlexNet with labels or a teacher, and of a second network on more photographs."""

from dataclasses import dataclass

import keras
import numpy as np

from service.data.batches import LabelledPixels
from service.data.dataset import Dataset
from service.data.views import Views
from service.networks.alexnet import HIDDEN_LAYER, NETWORKS
from service.training import fit_on_device
from service.training.augment import training_view
from service.training.calibrate import calibrate
from service.training.checkpoint import Epoch
from service.training.fit import fit, predict
from service.training.fold import fold_batch_norm, unfold_batch_norm
from service.training.kept import describe_kept
from service.training.keras_settings import compute_precision, fastest_precision
from service.training.lesson import LESSON_FILE
from service.training.observer import Observer
from service.training.recipe import AlexNetRecipe, recipe_values
from service.training.run import Run
from service.training.targets import Float32, LabelTargets, Targets
from service.training.teach import teach
from service.training.trained_network import TrainedNetwork, add_known, on_pixels
from service.training.view_makers import make_views

MIN_EPOCH = 1024
"""Least number of views in an epoch. A smaller folder is repeated."""

_NUM_MEASURED = 512  # views, for the statistics of a network that goes on


@dataclass(frozen=True, eq=False)
class FittedAlexNet:
    """A trained AlexNet, with batch normalisation folded: float32 (N, 224, 224, 3) to logits.

    `teacher_accuracy` is None without a teacher, or without photographs to measure it on.
    """

    network: keras.Model
    history: tuple[Epoch, ...]
    interrupted: bool
    teacher_accuracy: float | None


def train_alexnet(dataset: Dataset, recipe: AlexNetRecipe, run: Run, observer: Observer) -> TrainedNetwork:
    """Train a network on the training part. With `recipe.refit` a second one learns from both parts.

    Ctrl-C during the second network keeps the first. Raises as `train`.
    """
    num_photographs = sum(len(dataset.split.photographs[part]) for part in ("train", "validation"))
    observer.stage(f"decoding {num_photographs:,} photographs")
    photographs, validation = dataset.full_images("train"), dataset.squares("validation")
    first = fit_alexnet(dataset, recipe, run, observer, photographs, validation)
    if first.interrupted:
        observer.say(
            f"Interrupted after {len(first.history)} of {recipe.schedule.epochs} epochs. The best is published. "
            f"{run.folder} keeps all of them, and the same command goes on."
        )
    observer.stage("calibrating")
    calibration = calibrate(answer(first.network, recipe, validation), validation.class_indices)
    published, held_out = first, validation
    if recipe.refit and not first.interrupted:
        observer.say(
            "The first network is trained. A second one now learns from training and validation photographs together, "
            "and is published with the first one's calibration. Ctrl-C publishes the first."
        )
        try:
            observer.stage(f"decoding {len(dataset.split.photographs['validation']):,} photographs")
            both = dataset.full_images("train", "validation")
            second = fit_alexnet(dataset, recipe, run.sub("refit"), observer, both, None)
            if not second.interrupted:  # else it has learned less than the first
                published, held_out = second, dataset.squares("test")
        except KeyboardInterrupt:  # before its first epoch was done, as while its teacher learns
            pass
        if published is first:
            observer.say(f"Interrupted. The first network is published. {describe_kept(run)}")
    is_refitted = published is not first
    values = {
        **recipe_values(recipe), "refit": is_refitted, "seed": dataset.seed, "device": run.began_on,
        "epochs_done": len(first.history), "teacher_accuracy": first.teacher_accuracy,
    }  # fmt: skip
    is_finished = is_refitted or not (recipe.refit or first.interrupted)
    return TrainedNetwork(
        published.network, recipe.scale, recipe.offset, calibration, held_out, values, first.history,
        first.interrupted, is_finished,
    )  # fmt: skip


def answer(network: keras.Model, recipe: AlexNetRecipe, squares: LabelledPixels) -> Float32:
    """Return the network's logits, float32 (N, num_classes), for N squares."""
    return predict(on_pixels(network, recipe.scale, recipe.offset), squares.images)["logits"]


def learns_on_device(recipe: AlexNetRecipe) -> bool:
    """Return whether the networks of a recipe learn with everything in the device's memory."""
    return recipe.num_folds > 0 and recipe.teaching is not None and keras.backend.backend() == "jax"


def build_learning(
    recipe: AlexNetRecipe, num_classes: int, num_features: int, *, is_bfloat16: bool = False
) -> tuple[keras.Model, keras.Model]:
    """Build a recipe's network, and the same behind its normalisation, as `fit` takes it.

    The latter also foretells `num_features` features of a teacher. `is_bfloat16` says that the precision "auto" is
    "mixed_bfloat16", even if that is not the fastest on a CPU.
    """
    fastest = "mixed_bfloat16" if is_bfloat16 else fastest_precision()
    with compute_precision(fastest if recipe.precision == "auto" else recipe.precision):
        network = NETWORKS[recipe.network](num_classes, batch_norm=recipe.batch_norm, dropout=recipe.dropout)
    return network, on_pixels(network, recipe.scale, recipe.offset, HIDDEN_LAYER, num_features)


def fit_alexnet(
    dataset: Dataset,
    recipe: AlexNetRecipe,
    run: Run,
    observer: Observer,
    photographs: LabelledPixels,
    validation: LabelledPixels | None,
    begin: keras.Model | None = None,
) -> FittedAlexNet:
    """Train one network on full images and the dataset's outliers, after its teacher if the recipe has one.

    A checkpoint and a teacher's answers in the run folder are taken up. `validation` are squares to measure on, or
    None. A network of a cross-validation keeps its last weights, any other its best. `begin` is a network without batch
    normalisation whose weights are the first ones. None means random weights. Raises as `train`.
    """
    run.make()
    photographs = dataset.with_outliers(photographs)
    photographs = photographs.repeated(-(-MIN_EPOCH // len(photographs.images)))
    num_classes, teaching = len(dataset.class_names), recipe.teaching
    view, num_views = training_view(recipe.augmentation, dataset.rule), teaching.num_views if teaching else 0
    # `fit` takes a checkpoint up on any machine, and it alone knows outliers.
    is_on_device = learns_on_device(recipe) and not run.checkpoint.exists() and not dataset.outliers
    targets: Targets = LabelTargets(photographs.class_indices, num_classes, recipe.label_smoothing)
    with keras.device(f"{run.device}:0"):
        if is_on_device:
            observer.stage(f"making {num_views * len(photographs.images):,} views")
        views = (make_views if is_on_device else Views)(photographs.images, view, dataset.seed, num_views)
        if teaching:
            targets = teach(
                teaching, recipe.augmentation, num_classes, photographs, views, validation,
                rule=dataset.rule, cache=run.folder / LESSON_FILE, observer=observer,
            )  # fmt: skip
        observer.stage("building the network")
        keras.utils.set_random_seed(dataset.seed)
        is_bfloat16 = is_on_device and run.device == "gpu"
        network, learning = build_learning(recipe, num_classes, targets.num_features, is_bfloat16=is_bfloat16)
        if begin is not None:
            some = np.arange(min(_NUM_MEASURED, len(views)))
            shown = views.batch(some, np.zeros_like(some)).images
            unfold_batch_norm(begin, network, shown.astype(np.float32) * recipe.scale + recipe.offset)
        if targets.is_known is not None:
            learning = keras.Model(learning.input, add_known(learning.output))
        parts = (learning, views, targets, recipe.schedule, run.checkpoint, observer, validation)
        if is_on_device:
            fitted = fit_on_device.fit(*parts)
        else:
            fitted = fit(*parts, keeps_best=recipe.num_folds == 0, cluster=run.cluster)
    # On the CPU, as the check of the export computes. A GPU in TensorFloat-32 differs by 1e-3.
    with keras.device("cpu:0"):
        plain = fold_batch_norm(network, NETWORKS[recipe.network](num_classes))
    return FittedAlexNet(plain, fitted.history, fitted.interrupted, targets.accuracy)
