"""Photographs in a wrong class folder, found by a cross-validation of the last layer."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import keras
import numpy as np
from numpy.typing import NDArray

from service.data.batches import load_squares
from service.data.check import CheckedPhotograph, DataCheck
from service.files import digest_bytes
from service.imaging.limits import ImageLimits, ResizeRule
from service.training.features import extract_features
from service.training.last_layer import learn_last_layer
from service.training.targets import Float32
from service.training.transfer import features_model

NETWORK = "efficientnet_lite0"
MOST_DECODED = 1024
"""Photographs whose squares lie in memory together. They take 150 MB."""

_NUM_FOLDS = 5
_RULE = ResizeRule()


@dataclass(frozen=True)
class Suspect:
    """Photograph whose label may be wrong.

    `label_probability` and `other_probability` are those of its label and of `other`, the most probable other class, by
    a layer that has not learned it. `is_likely` says that confident learning counts it as an error.
    """

    path: Path
    label: str
    other: str
    label_probability: float
    other_probability: float
    is_likely: bool


def find_suspects(
    check: DataCheck, limits: ImageLimits, folder: Path, progress: Callable[[int, int], None]
) -> list[Suspect]:
    """Rank the photographs of a folder, the most suspect label first.

    Args:
        check: The photographs of two classes or more.
        limits: Of one image.
        folder: Place for files of features.
        progress: Gets photographs done, and in all.

    Raises:
        DatasetError: A photograph cannot be read or decoded any more.

    Source: Northcutt, Jiang and Chuang (2021), "Confident Learning". Its thresholds, and its normalized margin.
    """
    model, total, pieces, indices = features_model(NETWORK), len(check.photographs), [], []
    for start in range(0, total, MOST_DECODED):
        some = check.photographs[start : start + MOST_DECODED]
        squares = load_squares(some, check.class_names, _RULE, limits)
        advance = partial(_advance, progress, start, total)
        pieces.append(extract_features(model, squares.images, folder / f"from-{start}", advance))
        indices.append(squares.class_indices)
    features, class_indices = np.concatenate(pieces, axis=1), np.concatenate(indices)
    probabilities = cross_validate_layer(features, class_indices, assign_folds(check), len(check.class_names))
    return rank_suspects(check.photographs, probabilities, class_indices, check.class_names)


def _advance(progress: Callable[[int, int], None], start: int, total: int, done: int) -> None:
    progress(start + done, total)


def cross_validate_layer(
    features: Float32, class_indices: NDArray[np.int64], folds: NDArray[np.int64], num_classes: int
) -> Float32:
    """Return probabilities, float32 (N, num_classes), each by a layer that has learned the other folds.

    `features` are float32 (V, N, F), `class_indices` and `folds` int64 (N,).
    """
    logits = np.zeros((len(folds), num_classes), np.float32)
    for fold in np.unique(folds):
        asked = folds == fold
        layer = learn_last_layer(features[:, ~asked], class_indices[~asked], num_classes)
        logits[asked] = layer.logits(features[0, asked])
    return np.asarray(keras.ops.softmax(logits), np.float32)


def rank_suspects(
    photographs: Sequence[CheckedPhotograph],
    probabilities: Float32,
    class_indices: NDArray[np.int64],
    class_names: Sequence[str],
) -> list[Suspect]:
    """Rank photographs by the margin of their label over the most probable other class, the smallest first.

    `probabilities` are float32 (N, num_classes), `class_indices` int64 (N,).
    """
    places = np.arange(len(probabilities))
    of_label = probabilities[places, class_indices]
    others = probabilities.copy()
    others[places, class_indices] = -1
    best_other = others.argmax(axis=1)
    of_other = others[places, best_other]
    thresholds = np.full(len(class_names), np.inf)  # of a class without photographs
    for index in np.unique(class_indices):
        thresholds[index] = of_label[class_indices == index].mean()
    is_likely = (of_other >= thresholds[best_other]) & (of_other > of_label)
    return [
        Suspect(
            photographs[place].path,
            class_names[class_indices[place]],
            class_names[best_other[place]],
            float(of_label[place]),
            float(of_other[place]),
            bool(is_likely[place]),
        )
        for place in np.argsort(of_label - of_other, kind="stable")
    ]


def assign_folds(check: DataCheck) -> NDArray[np.int64]:
    """Return the fold of each photograph. Near-duplicates are in one fold together."""
    first_of = {photograph: group[0] for group in check.near_duplicates for photograph in group}
    digests = [digest_bytes(first_of.get(one, one).pixels_digest.encode()) for one in check.photographs]
    return np.array([int(digest[:16], 16) % _NUM_FOLDS for digest in digests], np.int64)
