"""Cross-validation. One network learns from all photographs, and the networks of the folds calibrate it."""

from collections.abc import Sequence
from dataclasses import asdict

import numpy as np

from service.data.batches import LabelledPixels
from service.data.dataset import Dataset
from service.errors import DatasetError
from service.files import digest_bytes
from service.training.alexnet import FittedAlexNet, answer, fit_alexnet
from service.training.calibrate import calibrate
from service.training.checkpoint import Epoch
from service.training.observer import Observer
from service.training.recipe import AlexNetRecipe, recipe_values
from service.training.run import Run
from service.training.trained_network import TrainedNetwork


def cross_validate(dataset: Dataset, recipe: AlexNetRecipe, run: Run, observer: Observer) -> TrainedNetwork:
    """Train the network to publish on training and validation part, then one network for each fold of them.

    The network of a fold, and its teacher, learn from the other folds. Its answers to the fold calibrate. Networks that
    the run folder has are not trained again. Raises as `train`.
    """
    folds = np.array(assign_folds(dataset, recipe.num_folds))
    if len(set(folds)) < recipe.num_folds:
        raise DatasetError(
            f"{len(folds)} photographs are too few for {recipe.num_folds} folds. One of them has none. Add "
            "photographs, or take --recipe default."
        )
    observer.stage(f"decoding {len(folds):,} photographs")
    known = dataset.full_images("train", "validation")
    listed = (*dataset.split.photographs["train"], *dataset.split.photographs["validation"])
    observer.say(f"{recipe.num_folds + 1} networks learn: the published one, and one for each fold.")

    def learn(name: str, photographs: LabelledPixels, validation: LabelledPixels | None) -> FittedAlexNet:
        fitted = fit_alexnet(dataset, recipe, run.sub(name), observer, photographs, validation)
        if fitted.interrupted:
            raise KeyboardInterrupt  # the same command goes on
        return fitted

    whole = learn("whole", known, None)
    fitted, asked = [], []
    for fold in range(recipe.num_folds):
        in_fold, others = (np.flatnonzero((folds == fold) == is_in).tolist() for is_in in (True, False))
        photographs = [listed[place] for place in in_fold]
        asked.append(dataset.load("square", photographs))
        fitted.append(learn(f"fold-{fold}", known.take(others), asked[-1]))
    logits = [answer(one.network, recipe, squares) for one, squares in zip(fitted, asked, strict=True)]
    class_indices = np.concatenate([squares.class_indices for squares in asked])
    values = {
        **recipe_values(recipe), "seed": dataset.seed, "device": run.began_on,
        "epochs_done": recipe.schedule.epochs, "folds": recipe.num_folds, "teacher_accuracy": None,
    }  # fmt: skip
    if recipe.teaching:
        accuracies = np.array([one.teacher_accuracy for one in fitted], np.float64)
        values["teacher_accuracy"] = float(np.average(accuracies, weights=[len(part) for part in logits]))
    calibration = calibrate(np.concatenate(logits), class_indices, "cross-validation")
    history = tuple(mean_epoch(rows) for rows in zip(*(one.history for one in fitted), strict=True))
    held_out = dataset.squares("test")
    return TrainedNetwork(whole.network, recipe.scale, recipe.offset, calibration, held_out, values, history)


def assign_folds(dataset: Dataset, num_folds: int) -> list[int]:
    """Return the fold of each photograph of training and validation part. Near-duplicates are in one fold together.

    Of few photographs a fold may have none.
    """
    first_of = {photograph: group[0] for group in dataset.check.near_duplicates for photograph in group}
    folds = []
    for photograph in (*dataset.split.photographs["train"], *dataset.split.photographs["validation"]):
        pixels_digest = first_of.get(photograph, photograph).pixels_digest
        digest = digest_bytes(f"{dataset.seed}:fold:{pixels_digest}".encode())
        folds.append(int(digest[:16], 16) % num_folds)
    return folds


def mean_epoch(rows: Sequence[Epoch]) -> Epoch:
    """Return the same epoch of several trainings as one row of means."""
    means = {key: float(np.mean([getattr(row, key) for row in rows])) for key in asdict(rows[0]) if key != "epoch"}
    return Epoch(epoch=rows[0].epoch, **means)
