"""AlexNet v2, taught by a pretrained EfficientNet-Lite2 that has learned the same photographs.

    flowers train

Two cores with AVX-512 and bfloat16: 88.7 % (464 of 523) on the validation part of flower_photos, seed 0, and 89.7 %
(446 of 497) on the test part; the teacher 95.4 % (`benchmarks/results/recipe-default.json`). That is the first of its
two networks, published by Ctrl-C; the second, which learns from both parts, has not been measured. A quarter of an hour
for the teacher and its answers and 8.2 seconds an epoch of AlexNet, and the same again for the second network, by its
size a quarter longer: a good two hours. The views want 14 GB of free memory, or are made anew in every epoch.

In a GPU's memory, with 36 views: 90.8 % (475 of 523), a log loss of 0.296 and the teacher's best class on 91.0 %;
without its features, and with blends of its answers to two views in place of its answers to their blend, 87.8 %, 0.336
and 88.7 % (`benchmarks/accuracy.md`). In that older form, whose blends were new in every epoch, two cores gave 90.8 %
at the best epoch, 90.6 % on average over the last twenty, and 90.1 % (448 of 497) on the test part after the second
training; without the mean of the last quarter 89.3 %; with 150 epochs, mixup 0.2 and no cutmix 89.5 %. One standard
error is 1.4 points: whether the older form or more views are worth their price is open.
"""

from service.training.recipe import Augmentation, Recipe

RECIPE = Recipe(
    name="default",
    network="alexnet_v2",
    epochs=320,
    batch_size=64,
    batch_norm=True,
    learning_rate=1e-3,
    warmup_epochs=5,
    cosine=True,
    weight_decay=0.02,
    average_decay=0.998,
    swa_share=0.25,
    augmentation=Augmentation(flip=True, min_area=0.25, color=0.25, mixup=1.0, cutmix=0.5, unmixed=0.15),
    scale=1 / 127.5,
    offset=-1.0,
    teacher="efficientnet_lite2",
    teacher_temperature=2.0,
    feature_weight=1.0,
    refit=True,
)
