"""Trained network with all that its version's metadata state, its outputs by name, and the scores made of them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import keras

from service.data.batches import LabelledPixels
from service.store.layout import DISTANCE, ENERGY, OUTPUT
from service.training.calibrate import Calibration
from service.training.checkpoint import Epoch


@dataclass(frozen=True, eq=False)
class TrainedNetwork:
    """A network that can be published.

    `network` maps float32 (N, image_size, image_size, 3), `pixel * scale + offset`, to outputs as of `name_outputs`.
    AlexNet's batch normalisation is folded. `held_out` are squares that it has not learned. Networks for onnxruntime
    are compared on some of them. `recipe_values` stand in the metadata. `is_finished` is false where the same command
    has more to train. `backbone` names the pretrained network that it began as. It is empty without one.
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
    backbone: str = ""


def name_outputs(outputs: Any) -> dict[str, Any]:
    """Return a network's outputs by name. A bare tensor is named "logits".

    They are "logits", float32 (N, num_classes). A network with a backbone also has "distance", float32 (N,), from the
    training photographs. They may be symbolic.
    """
    return dict(outputs) if isinstance(outputs, Mapping) else {"logits": outputs}


def score_outputs(outputs: Any, temperature: float) -> dict[str, Any]:
    """Make the scores of a version, by the names of `store.layout`, from its network's outputs.

    These are "probabilities", (N, num_classes), "energy", (N,), and "distance", (N,), where the network has one. The
    energy is of the logits before the temperature. All are float32, and symbolic if the outputs are.

    Source: Liu et al. (2020), "Energy-based Out-of-distribution Detection", section 3.1.
    """
    named = name_outputs(outputs)
    logits = keras.ops.cast(named["logits"], "float32")
    largest = keras.ops.max(logits, axis=-1, keepdims=True)
    # Keras' own logsumexp looks for infinities first, which triples the number of nodes of an ONNX graph.
    sums = keras.ops.sum(keras.ops.exp(logits - largest), axis=-1)
    energy = -keras.ops.log(sums) - keras.ops.squeeze(largest, axis=-1)
    scores = {OUTPUT: keras.ops.softmax(logits / temperature), ENERGY: energy}
    if DISTANCE in named:
        scores[DISTANCE] = keras.ops.cast(named[DISTANCE], "float32")
    return scores


def add_known(outputs: Mapping[str, Any]) -> dict[str, Any]:
    """Add the output "known", (N, 1), to "logits", (N, num_classes): the logit that a view shows one of the classes.

    It is the negative energy. So no network gets a class or a weight more.

    Source: Liu et al. (2020), "Energy-based Out-of-distribution Detection", section 3.2.
    """
    return {**outputs, "known": keras.ops.logsumexp(outputs["logits"], axis=-1, keepdims=True)}


def on_pixels(
    network: keras.Model, scale: float, offset: float, hidden_layer: str = "", num_features: int = 0
) -> keras.Model:
    """Put a network behind its normalisation, `pixel * scale + offset`. The new model shares its weights.

    The network maps float32 (N, height, width, 3) to outputs. The new model maps uint8 (N, height, width, 3) to those,
    as `name_outputs` names them. With `num_features` it also has "features", (N, num_features), which the layer called
    `hidden_layer` foretells. The network then has logits alone.
    """
    images = keras.Input(network.input_shape[1:], dtype="uint8", name="pixels")
    normalised = keras.layers.Rescaling(scale, offset, dtype="float32")(images)
    if not num_features:
        return keras.Model(images, name_outputs(network(normalised)))
    hidden = network.get_layer(hidden_layer).output
    logits, activations = keras.Model(network.input, [network.output, hidden], name=network.name)(normalised)
    features = keras.layers.Dense(num_features, kernel_initializer="zeros", dtype="float32")(activations)
    return keras.Model(images, {"logits": logits, "features": features})
