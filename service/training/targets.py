"""Targets of a training: the labels of the photographs, or a teacher's answers."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.data.views import Batch

Float32 = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class LabelTargets:
    """Targets from labels, int64 (number of photographs,). A mixed view has both labels by their shares.

    The share `smoothing` of a target is spread over all classes.
    """

    class_indices: NDArray[np.int64]
    num_classes: int
    smoothing: float = 0.0
    num_features, feature_weight, accuracy = 0, 0.0, None

    def of(self, batch: Batch) -> dict[str, NDArray[Any]]:
        """Return the targets of each output, float32 (N, width), for a batch of N views."""
        one_hot, smoothing = np.eye(self.num_classes, dtype=np.float32), np.float32(self.smoothing)
        own, other = (one_hot[self.class_indices[shown]] for shown in (batch.photographs, batch.others))
        share = batch.shares[:, None]
        return {"logits": (share * own + (1 - share) * other) * (1 - smoothing) + smoothing / self.num_classes}


@dataclass(frozen=True, eq=False)
class TeacherTargets:
    """The teacher's probabilities and features for every training view.

    `answers` are probabilities, float32 (num_views, number of photographs, num_classes). `features` are float16
    (num_views, number of photographs, num_features), with a variance of 1 in sum, or None. `accuracy` is the teacher's
    on held-out photographs, or None. `feature_weight` is that of the features' squared error beside the cross-entropy.
    """

    answers: Float32
    features: NDArray[np.float16] | None
    accuracy: float | None
    feature_weight: float = 1.0

    @property
    def num_features(self) -> int:
        """Number of the teacher's features that the network foretells."""
        return 0 if self.features is None else self.features.shape[-1]

    def of(self, batch: Batch) -> dict[str, NDArray[Any]]:
        """Return the targets of each output, as `LabelTargets.of` does."""
        targets: dict[str, NDArray[Any]] = {"logits": self.answers[batch.views, batch.photographs]}
        if self.features is not None:
            targets["features"] = self.features[batch.views, batch.photographs].astype(np.float32)
        return targets


Targets = LabelTargets | TeacherTargets
"""Targets of the outputs `logits` and, if `num_features` is not 0, `features`."""
