"""Pretrained network with a new last layer, and with the distance of an image from the training photographs."""

import keras
import numpy as np
from keras import layers
from numpy.typing import NDArray


def transfer_network(
    backbone: keras.Model, kernel: NDArray[np.float32], bias: NDArray[np.float32], centres: NDArray[np.float32]
) -> keras.Model:
    """Put a last layer and centres on a backbone, which maps images to features, float32 (N, F).

    The new model maps the same images to {"logits": (N, num_classes), "distance": (N,)}. It shares the backbone's
    weights. The distance is 1 minus the largest cosine of the features with a centre, between 0 and 2.

    Args:
        backbone: Model from float32 (N, 224, 224, 3).
        kernel: float32 (F, num_classes), the weights of the last layer.
        bias: float32 (num_classes,).
        centres: float32 (F, M), M directions of length 1.
    """
    features = backbone.output
    last = layers.Dense(len(bias), dtype="float32", name="logits")
    cosines = layers.Dense(centres.shape[1], use_bias=False, dtype="float32", name="cosines")
    directions = layers.UnitNormalization(dtype="float32", name="directions")(features)
    distance = 1.0 - keras.ops.max(cosines(directions), axis=-1)
    network = keras.Model(backbone.input, {"logits": last(features), "distance": distance}, name=backbone.name)
    last.set_weights([kernel, bias])
    cosines.set_weights([centres])
    return network
