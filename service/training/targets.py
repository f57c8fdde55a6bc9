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
    spread over all of them. If there is one, the share of a view that shows a class is the target "known".

    Source: Hendrycks et al. (2019), "Deep Anomaly Detection with Outlier Exposure".
    """

    class_indices: NDArray[np.int64]
    num_classes: int
    smoothing: float = 0.0
    num_features, feature_weight, accuracy = 0, 0.0, None

    @property
    def has_known(self) -> bool:
        """Whether there is a target "known"."""
        return bool((self.class_indices == NONE_OF_THESE).any())

    def of(self, batch: Batch) -> dict[str, NDArray[Any]]:
        """Return the targets of each output, float32 (N, width), for a batch of N views."""
        number, smoothing = self.num_classes, np.float32(self.smoothing)
        rows = np.vstack([np.eye(number, dtype=np.float32), np.full((1, number), 1 / number, np.float32)])
        classes = [self.class_indices[shown] for shown in (batch.photographs, batch.others)]
        (own, other), share = (rows[indices] for indices in classes), batch.shares[:, None]
        targets = {"logits": (share * own + (1 - share) * other) * (1 - smoothing) + smoothing / number}
        if self.has_known:
            own, other = ((indices != NONE_OF_THESE).astype(np.float32)[:, None] for indices in classes)
            targets["known"] = share * own + (1 - share) * other
        return targets


@dataclass(frozen=True, eq=False)
class TeacherTargets:
    """The teacher's probabilities and features for every training view.

    `answers` are probabilities, float32 (num_views, number of photographs, num_classes). `features` are float16
    (num_views, number of photographs, num_features), with a variance of 1 in sum, or None. `accuracy` is the teacher's
    on held-out photographs, or None. `feature_weight` is that of the features' squared error beside the cross-entropy.
    `known` is the teacher's probability that a view shows one of the classes, float32 (num_views, number of
    photographs), or None for a teacher that has seen nothing else.
    """

    answers: Float32
    features: NDArray[np.float16] | None
    accuracy: float | None
    feature_weight: float = 1.0
    known: Float32 | None = None

    @property
    def has_known(self) -> bool:
        """Whether there is a target "known"."""
        return self.known is not None

    @property
    def num_features(self) -> int:
        """Number of the teacher's features that the network foretells."""
        return 0 if self.features is None else self.features.shape[-1]

    def of(self, batch: Batch) -> dict[str, NDArray[Any]]:
        """Return the targets of each output, as `LabelTargets.of` does."""
        targets: dict[str, NDArray[Any]] = {"logits": self.answers[batch.views, batch.photographs]}
        if self.features is not None:
            targets["features"] = self.features[batch.views, batch.photographs].astype(np.float32)
        if self.known is not None:
            targets["known"] = self.known[batch.views, batch.photographs, None]
        return targets


Targets = LabelTargets | TeacherTargets
"""Targets of the output `logits`, of `features` if `num_features` is not 0, and of `known` with `has_known`."""
