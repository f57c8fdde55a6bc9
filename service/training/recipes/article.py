"""The reference article's own experiment.

    flowers train --recipe article

The article reports 79.26 % and 9 s an epoch on its CPU, 90.71 % and 2 s on its GPU. It does not name the photographs.
It does not print its recipe. Batch 32, Adam at 1e-3, horizontal flip, 10 epochs and pixels / 255 are assumed.
"""

from service.training.recipe import AlexNetRecipe, Augmentation
from service.training.schedule import Schedule

RECIPE = AlexNetRecipe(
    name="article",
    network="alexnet_v1",
    schedule=Schedule(epochs=10, batch_size=32),
    augmentation=Augmentation(flip=True),
    precision="float32",
    model_name="article",
    every_device=True,
)
