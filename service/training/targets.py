"""Targets of a training: the labels of the photographs, or a teacher's answers."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.data.outliers import NONE_OF_THESE
from service.data.views import Batch

Float32 = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class LabelTargets:
    """Targets from labels, int64 (number of photographs,). A mixed view has both labels by their shares.

    The share `smoothing` of a target is spread over all classes. The target of a photograph that is `NONE_OF_THESE` is
    spread over all of them, too. "known" is as of `TeacherTargets`, and left out unless it `learns_known`.

    Source: Hendrycks et al. (2019), "Deep Anomaly Detection with Outlier Exposure".
    """

    class_indices: NDArray[np.int64]
    num_classes: int
    smoothing: float = 0.0
    learns_known: bool = True
    num_features, feature_weight, accuracy = 0, 0.0, None

    @property
    def is_known(self) -> NDArray[np.bool_] | None:
        """Which photographs show a class, shape (number of photographs,). None means all of them."""
        is_known = self.class_indices != NONE_OF_THESE
        return None if not self.learns_known or is_known.all() else is_known

    def of(self, batch: Batch) -> dict[str, NDArray[Any]]:
        """Return the targets of each output, float32 (N, width), for a batch of N views."""
        number, smoothing = self.num_classes, np.float32(self.smoothing)
        rows = np.vstack([np.eye(number, dtype=np.float32), np.full((1, number), 1 / number, np.float32)])
        own, other = (rows[self.class_indices[shown]] for shown in (batch.photographs, batch.others))
        share = batch.shares[:, None]
        logits = (share * own + (1 - share) * other) * (1 - smoothing) + smoothing / number
        return {"logits": logits, **_known(self.is_known, batch)}


@dataclass(frozen=True, eq=False)
class TeacherTargets:
    """The teacher's probabilities and features for every training view.

    `answers` are probabilities, float32 (num_views, number of photographs, num_classes). `features` are float16
    (num_views, number of photographs, num_features), with a variance of 1 in sum, or None. `accuracy` is the teacher's
    on held-out photographs, or None. `feature_weight` is that of the features' squared error beside the cross-entropy.
    `is_known` tells which photographs show a class, shape (number of photographs,). If some do not, the share of a view
    that shows a class is the target "known". None means that all do.
    """

    answers: Float32
    features: NDArray[np.float16] | None
    accuracy: float | None
    feature_weight: float = 1.0
    is_known: NDArray[np.bool_] | None = None

    @property
    def num_features(self) -> int:
        """Number of the teacher's features that the network foretells."""
        return 0 if self.features is None else self.features.shape[-1]

    def of(self, batch: Batch) -> dict[str, NDArray[Any]]:
        """Return the targets of each output, as `LabelTargets.of` does."""
        targets: dict[str, NDArray[Any]] = {"logits": self.answers[batch.views, batch.photographs]}
        if self.features is not None:
            targets["features"] = self.features[batch.views, batch.photographs].astype(np.float32)
        return targets | _known(self.is_known, batch)


def _known(is_known: NDArray[np.bool_] | None, batch: Batch) -> dict[str, NDArray[np.float32]]:
    if is_known is None:
        return {}
    own, other = (is_known[shown].astype(np.float32) for shown in (batch.photographs, batch.others))
    return {"known": (batch.shares * own + (1 - batch.shares) * other)[:, None]}


Targets = LabelTargets | TeacherTargets
"""Targets of the output `logits`. `features` come with `num_features`, `known` unless `is_known` is None."""
