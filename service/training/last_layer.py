"""Last layer on frozen features, and centres of the classes to measure distances from."""

from dataclasses import dataclass

import keras
import numpy as np
from numpy.typing import NDArray

from service.training.targets import Float32

_NUM_STEPS, _LEARNING_RATE, _DECAY = 100, 0.02, 0.005
_CENTRES_PER_CLASS, _NUM_ROUNDS = 4, 15


@dataclass(frozen=True, eq=False)
class LastLayer:
    """Weights of a last layer, and centres of the classes, for F features.

    `kernel` is float32 (F, num_classes), `bias` (num_classes,). `centres` is float32 (F, M). Its columns have length 1.
    """

    kernel: Float32
    bias: Float32
    centres: Float32

    def logits(self, features: Float32) -> Float32:
        """Return logits, float32 (N, num_classes), of features, float32 (N, F)."""
        return features @ self.kernel + self.bias

    def distances(self, features: Float32) -> Float32:
        """Return distances, float32 (N,), of features, float32 (N, F): 1 minus the largest cosine with a centre."""
        return np.asarray(1 - (_directions(features) @ self.centres).max(axis=1), np.float32)


def learn_last_layer(features: Float32, class_indices: NDArray[np.int64], num_classes: int) -> LastLayer:
    """Learn a last layer from views of photographs.

    `features` are float32 (V, N, F), V views of N photographs. `class_indices` are int64 (N,). The loss is the
    cross-entropy with a penalty on squared weights. Adam takes 100 steps, each over all views. So the result depends on
    no seed. The centres are those of the first views.
    """
    num_views, _, width = features.shape
    layer = keras.layers.Dense(
        num_classes, kernel_initializer="zeros", kernel_regularizer=keras.regularizers.L2(_DECAY), dtype="float32"
    )
    model = keras.Sequential([keras.Input((width,)), layer])
    rate = keras.optimizers.schedules.CosineDecay(_LEARNING_RATE, _NUM_STEPS)
    model.compile(keras.optimizers.Adam(rate, beta_2=0.99), keras.losses.CategoricalCrossentropy(from_logits=True))
    targets = np.tile(np.eye(num_classes, dtype=np.float32)[class_indices], (num_views, 1))
    for _ in range(_NUM_STEPS):
        model.train_on_batch(features.reshape(-1, width), targets)
    kernel, bias = layer.get_weights()
    return LastLayer(kernel, bias, find_centres(features[0], class_indices))


def find_centres(features: Float32, class_indices: NDArray[np.int64]) -> Float32:
    """Return up to four centres of each class, float32 (F, M), for features, float32 (N, F), and classes, int64 (N,).

    A centre is a mean direction of length 1. Each class of `class_indices` has one. A larger class has more.

    Source: Dhillon & Modha (2001), "Concept Decompositions for Large Sparse Text Data", for spherical k-means.
    """
    directions = _directions(features)
    of_each = [_cluster(directions[class_indices == index]) for index in np.unique(class_indices)]
    return np.concatenate(of_each).T


def _cluster(directions: Float32) -> Float32:
    chosen = np.random.default_rng(0).permutation(len(directions))[:_CENTRES_PER_CLASS]
    centres = directions[chosen]
    for _ in range(_NUM_ROUNDS):
        nearest = (directions @ centres.T).argmax(axis=1)
        members = [directions[nearest == index] for index in range(len(centres))]
        centres = _directions(np.stack([some.sum(axis=0) for some in members if len(some)]))
    return centres


def _directions(features: Float32) -> Float32:
    """Return rows of length 1. A row of zeros stays."""
    lengths = np.linalg.norm(features, axis=-1, keepdims=True)
    return np.asarray(features / np.maximum(lengths, 1e-6), np.float32)
