"""Tuning of a pretrained network's upper layers, from a last layer that has learned already."""

from dataclasses import dataclass

import keras
import numpy as np

from service.data.batches import LabelledPixels
from service.data.dataset import Dataset
from service.data.parts import Part
from service.data.views import Views
from service.networks.backbones import load_backbone
from service.networks.transfer import transfer_network
from service.training.augment import unmixed_view
from service.training.checkpoint import Epoch, Variables, assign_variables, read_variables
from service.training.fit import fit, predict
from service.training.last_layer import LastLayer, find_centres
from service.training.observer import Observer
from service.training.recipe import TransferRecipe
from service.training.run import Run
from service.training.schedule import add_to_mean
from service.training.targets import LabelTargets

_DROPOUT = 0.2
_BATCH_SIZE = 32


@dataclass(frozen=True, eq=False)
class Tuned:
    """Network with tuned upper layers, as `transfer_network` makes it. `interrupted` means that it ended early.

    `weights` are those of the layers and of the last layer, in the order of `tune`.
    """

    network: keras.Model
    weights: Variables
    history: tuple[Epoch, ...]
    interrupted: bool


def tune(
    dataset: Dataset, recipe: TransferRecipe, run: Run, observer: Observer, begin: LastLayer, parts: tuple[Part, ...],
    validation: LabelledPixels | None, other: Tuned | None = None,
) -> Tuned:  # fmt: skip
    """Tune the upper share `recipe.tuned` of the layers on the photographs of `parts`.

    The last layer begins as `begin`. A checkpoint in the run folder is taken up. Each epoch is measured on the squares
    of `validation`. The last weights are kept, as a small validation part cannot tell which epoch is best. The lower
    layers keep their weights and their statistics. A few hundred photographs spoil more in them than they improve. If
    there is an `other` network of this recipe, the result has the mean of both networks' weights.

    Raises:
        TrainingError: The loss is no longer a number, or a checkpoint cannot be written or read.
        KeyboardInterrupt: Ctrl-C came before the end of the first epoch.
    """
    run.make()
    photographs, num_classes = dataset.full_images(*parts), len(dataset.class_names)
    keras.utils.set_random_seed(dataset.seed)
    backbone = load_backbone(recipe.network)
    layers = backbone.model.layers
    for layer in layers[: round(len(layers) * (1 - recipe.tuned))]:
        layer.trainable = False
    images = keras.Input(backbone.model.input_shape[1:], dtype="uint8")
    features = backbone.model(backbone.prepare(images))
    last = keras.layers.Dense(num_classes, dtype="float32")
    learning = keras.Model(images, {"logits": last(keras.layers.Dropout(_DROPOUT)(features))})
    last.set_weights([begin.kernel, begin.bias])
    views = Views(photographs.images, unmixed_view(recipe.augmentation, dataset.rule), dataset.seed)
    targets = LabelTargets(photographs.class_indices, num_classes)
    fitted = fit(learning, views, targets, recipe.schedule, run.checkpoint, observer, validation, keeps_best=False)
    weights = read_variables(learning.weights)
    if other:
        weights = add_to_mean(other.weights, weights, 2)
        assign_variables(learning.weights, weights)
    observer.stage("measuring distances")
    squares = [dataset.squares(part) for part in parts]
    of_squares = keras.Model(images, {"features": features})
    found = np.concatenate([predict(of_squares, part.images, _BATCH_SIZE)["features"] for part in squares])
    centres = find_centres(found, np.concatenate([part.class_indices for part in squares]))
    kernel, bias = last.get_weights()
    network = transfer_network(backbone.model, kernel, bias, centres)
    return Tuned(network, weights, fitted.history, fitted.interrupted)
