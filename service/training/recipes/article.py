"""The reference article's own experiment.

    flowers train --recipe article

The article does not print its recipe: batch 32, Adam at 1e-3, horizontal flip, 10 epochs and pixels / 255 are assumed.
It reports 9 s an epoch and 79.26 % on its CPU, 2 s and 90.71 % on its GPU, without saying on which photographs.
"""

from service.training.recipe import Augmentation, Recipe

RECIPE = Recipe(
    name="article",
    network="alexnet_v1",
    epochs=10,
    batch_size=32,
    augmentation=Augmentation(flip=True),
    precision="float32",
    model_name="article",
    every_device=True,
)
