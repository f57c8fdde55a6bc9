"""Training of new classes for a pretrained network. The last layer learns first, then the upper layers."""

import time
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache

import keras
import numpy as np

from service.data.batches import LabelledPixels
from service.data.dataset import Dataset
from service.data.parts import Part
from service.networks.backbones import LITE_OFFSET, LITE_SCALE, load_backbone
from service.networks.transfer import transfer_network
from service.training.calibrate import Calibration, calibrate
from service.training.checkpoint import Epoch
from service.training.cross_validation import assign_folds
from service.training.features import extract_features
from service.training.fit import measure_logits, predict
from service.training.last_layer import LastLayer, learn_last_layer
from service.training.observer import Observer
from service.training.recipe import TransferRecipe, recipe_values
from service.training.run import Run
from service.training.trained_network import TrainedNetwork, on_pixels
from service.training.tune import Tuned, tune

FEATURES_STEP, LAST_LAYER_STEP = "computing features", "learning the last layer"
"""Names of steps in the plan."""


@dataclass(frozen=True, eq=False)
class Frozen:
    """Last layers on frozen features.

    `of_training` has learned the training part, and `epoch` measures it on the validation part. `of_both` has learned
    both parts. Its calibration is by a cross-validation over both.
    """

    of_training: LastLayer
    of_both: LastLayer
    calibration: Calibration
    epoch: Epoch


@dataclass(frozen=True, eq=False)
class _Published:
    """Network to publish. It has not learned `held_out`. `history` is that of the last layer, or of the tuning."""

    network: keras.Model
    calibration: Calibration
    held_out: Part
    history: tuple[Epoch, ...]
    is_tuned: bool = False


def train_transfer(dataset: Dataset, recipe: TransferRecipe, run: Run, observer: Observer) -> TrainedNetwork:
    """Train a last layer on frozen features. Tune the upper layers, too, where that pays on the validation part.

    The published network has learned both parts. Ctrl-C while layers are tuned keeps the best network so far. Raises as
    `train`.
    """
    run.make()
    num_photographs = sum(len(dataset.split.photographs[part]) for part in ("train", "validation"))
    observer.stage(f"decoding {num_photographs:,} photographs")
    training, validation = dataset.squares("train"), dataset.squares("validation")
    is_cut_short = False
    with keras.device(f"{run.device}:0"):
        frozen = learn_frozen(dataset, recipe, run, observer, training, validation)
        published = _Published(_with_last_layer(recipe, frozen.of_both), frozen.calibration, "test", (frozen.epoch,))
        is_tuning = can_tune(dataset, recipe)
        if recipe.tuned > 0 and not is_tuning:
            observer.say(
                f"The upper layers are not tuned. The validation part has {len(validation.images)} photographs. At "
                f"least {recipe.min_validation} can tell whether that pays. Add photographs to have them tuned."
            )
        if is_tuning:
            try:
                tuned = tune(dataset, recipe, run.sub("tuned"), observer, frozen.of_training, ("train",), validation)
            except KeyboardInterrupt:  # before its first epoch was done
                is_cut_short = True
            else:
                is_cut_short = tuned.interrupted
                if measured := _measure(tuned, validation, frozen.epoch, observer):
                    published = _Published(tuned.network, measured, "validation", tuned.history, is_tuned=True)
                    second = (
                        None if is_cut_short else _tune_again(dataset, recipe, run, observer, frozen.of_both, tuned)
                    )
                    is_cut_short = second is None
                    if second is not None:
                        published = replace(published, network=second.network, held_out="test")
    values = {
        **recipe_values(recipe), "seed": dataset.seed, "device": run.began_on,
        "epochs_done": len(published.history), "is_tuned": published.is_tuned,
        "accuracy_of_last_layer": frozen.epoch.validation_accuracy,
    }  # fmt: skip
    return TrainedNetwork(
        published.network, LITE_SCALE, LITE_OFFSET, published.calibration, dataset.squares(published.held_out), values,
        published.history, interrupted=is_cut_short, is_finished=not is_cut_short, backbone=recipe.network,
    )  # fmt: skip


def can_tune(dataset: Dataset, recipe: TransferRecipe) -> bool:
    """Return whether the recipe tunes layers, and the validation part can tell whether that pays."""
    return recipe.tuned > 0 and len(dataset.split.photographs["validation"]) >= recipe.min_validation


def choose_network(dataset: Dataset, recipe: TransferRecipe) -> TransferRecipe:
    """Return the recipe with its `tuned_network` as the network, where it tunes layers. Else return it as it is."""
    return replace(recipe, network=recipe.tuned_network) if can_tune(dataset, recipe) else recipe


@cache
def features_model(network: str) -> keras.Model:
    """Return a pretrained network from uint8 (N, 224, 224, 3) to {"features": float32 (N, F)}.

    The plan measures it. The features then need no second tracing.
    """
    backbone = load_backbone(network)
    images = keras.Input(backbone.model.input_shape[1:], dtype="uint8")
    return keras.Model(images, {"features": backbone.model(backbone.prepare(images))})


def learn_frozen(
    dataset: Dataset, recipe: TransferRecipe, run: Run, observer: Observer,
    training: LabelledPixels, validation: LabelledPixels,
) -> Frozen:  # fmt: skip
    """Learn last layers from the features of squares. The features are kept in the run folder. Raises as `train`."""
    began = time.perf_counter()
    model, num_classes = features_model(recipe.network), len(dataset.class_names)
    total, features, before = len(training.images) + len(validation.images), [], 0
    for part, squares in (("train", training), ("validation", validation)):

        def progress(done: int, before: int = before) -> None:
            observer.progress(FEATURES_STEP, before + done, total)

        features.append(extract_features(model, squares.images, run.folder / "features" / part, progress))
        before += len(squares.images)
    observer.stage(LAST_LAYER_STEP)
    of_training = learn_last_layer(features[0], training.class_indices, num_classes)
    both, num_training = np.concatenate(features, axis=1), len(training.images)
    features.clear()  # for 50,000 photographs they are half a gigabyte
    class_indices = np.concatenate([training.class_indices, validation.class_indices])
    of_both = learn_last_layer(both, class_indices, num_classes)
    folds = np.array(assign_folds(dataset, recipe.num_folds))
    logits, distances = np.zeros((len(folds), num_classes), np.float32), np.zeros(len(folds), np.float32)
    for fold in np.unique(folds):
        asked, learned = folds == fold, folds != fold
        if not learned.any():
            learned = asked
        of_fold = learn_last_layer(both[:, learned], class_indices[learned], num_classes)
        logits[asked], distances[asked] = of_fold.logits(both[0, asked]), of_fold.distances(both[0, asked])
    calibration = calibrate(logits, class_indices, "cross-validation", distances)
    seconds = time.perf_counter() - began
    loss, accuracy = measure_logits(of_training.logits(both[0, :num_training]), training.class_indices)
    validated = measure_logits(of_training.logits(both[0, num_training:]), validation.class_indices)
    epoch = Epoch(0, loss, accuracy, *validated, 0.0, seconds, total / seconds)
    return Frozen(of_training, of_both, calibration, epoch)


def _with_last_layer(recipe: TransferRecipe, last: LastLayer) -> keras.Model:
    return transfer_network(load_backbone(recipe.network).model, last.kernel, last.bias, last.centres)


def _measure(tuned: Tuned, validation: LabelledPixels, frozen: Epoch, observer: Observer) -> Calibration | None:
    """Return the tuned network's calibration. None means that the frozen features do better."""
    outputs = predict(on_pixels(tuned.network, LITE_SCALE, LITE_OFFSET), validation.images)
    loss, accuracy = measure_logits(outputs["logits"], validation.class_indices)
    assert frozen.validation_loss is not None
    pays = loss < frozen.validation_loss
    observer.say(
        f"On the validation part the last layer alone has {frozen.validation_accuracy:.1%} right (loss "
        f"{frozen.validation_loss:.3f}). With upper layers tuned, {accuracy:.1%} are right (loss {loss:.3f}). "
        f"{'The tuned' if pays else 'The first'} network is published."
    )
    return calibrate(outputs["logits"], validation.class_indices, distances=outputs["distance"]) if pays else None


def _tune_again(
    dataset: Dataset, recipe: TransferRecipe, run: Run, observer: Observer, begin: LastLayer, first: Tuned
) -> Tuned | None:
    """Tune a second network on both parts, and take the mean of both networks. None means that Ctrl-C ended it early.

    Source: Wortsman et al. (2022), "Model soups: averaging weights of multiple fine-tuned models improves accuracy
    without increasing inference time".
    """
    observer.say(
        "A second network now learns from training and validation photographs together. Ctrl-C publishes the first."
    )
    with suppress(KeyboardInterrupt):
        second = tune(dataset, recipe, run.sub("refit"), observer, begin, ("train", "validation"), None, first)
        if not second.interrupted:
            return second
    return None
