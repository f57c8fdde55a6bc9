"""AlexNet v2 from random weights, with what has been learned since 2012.

    flowers train

83.7 % (416 of 497) on the test part of flower_photos, seed 0, after 45 epochs: about an hour on two cores with AVX2.
Batch normalisation while training (folded away at export), random crops, colour, mixup, AdamW with a cosine.
"""

from service.training.recipe import Augmentation, Recipe

RECIPE = Recipe(
    name="standard",
    network="alexnet_v2",
    epochs=45,
    batch_size=32,
    batch_norm=True,
    learning_rate=1e-3,
    warmup_epochs=2,
    cosine=True,
    weight_decay=0.05,
    label_smoothing=0.1,
    average_decay=0.998,
    augmentation=Augmentation(flip=True, min_area=0.3, color=0.2, mixup=0.1),
    scale=1 / 127.5,
    offset=-1.0,
)
