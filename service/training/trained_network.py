"""Trained network with all that its version's metadata state."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import keras

from service.data.batches import LabelledPixels
from service.training.calibrate import Calibration
from service.training.checkpoint import Epoch


@dataclass(frozen=True, eq=False)
class TrainedNetwork:
    """A network that can be published.

    `network` maps float32 (N, image_size, image_size, 3), `pixel * scale + offset`, to logits (N, num_classes). Batch
    normalisation is folded. `held_out` are squares that it has not learned. Networks for onnxruntime are compared on
    them. `recipe_values` stand in the metadata. `is_finished` is false where the same command has more to train.
    """

    network: keras.Model
    scale: float
    offset: float
    calibration: Calibration
    held_out: LabelledPixels
    recipe_values: Mapping[str, Any]
    history: tuple[Epoch, ...]
    interrupted: bool = False
    is_finished: bool = True


def on_pixels(
    network: keras.Model, scale: float, offset: float, hidden_layer: str = "", num_features: int = 0
) -> keras.Model:
    """Put a network behind its normalisation, `pixel * scale + offset`. The new model shares its weights.

    The network maps float32 (N, height, width, 3) to logits (N, num_classes). The new model maps uint8 (N, height,
    width, 3) to {"logits": (N, num_classes)}. With `num_features` it also has "features", (N, num_features), which the
    layer called `hidden_layer` foretells.
    """
    images = keras.Input(network.input_shape[1:], dtype="uint8", name="pixels")
    normalised = keras.layers.Rescaling(scale, offset, dtype="float32")(images)
    if not num_features:
        return keras.Model(images, {"logits": network(normalised)})
    hidden = network.get_layer(hidden_layer).output
    logits, activations = keras.Model(network.input, [network.output, hidden], name=network.name)(normalised)
    features = keras.layers.Dense(num_features, kernel_initializer="zeros", dtype="float32")(activations)
    return keras.Model(images, {"logits": logits, "features": features})
