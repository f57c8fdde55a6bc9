"""AlexNet v2, taught by a pretrained EfficientNet-Lite2 that has learned the same photographs.

    flowers train

88.7 % (464 of 523) on the validation part of flower_photos, seed 0, and 89.7 % (446 of 497) on the test part. The
teacher reaches 95.4 %. Two cores with AVX-512 and bfloat16 (`benchmarks/results/recipe-default.json`). That is the
first of the two networks, published by Ctrl-C. The second has not been measured. The teacher and its answers take a
quarter of an hour, an epoch of AlexNet 8.2 seconds, both networks a good two hours. The views need 14 GB of free
memory, or each epoch makes them anew.

With 36 views in a GPU's memory it reaches 90.8 % (475 of 523). Without the teacher's features, and with blended answers
in place of answers to blends, it reaches 87.8 % (`benchmarks/accuracy.md`). One standard error is 1.4 points.
"""

from service.training.recipe import AlexNetRecipe, Augmentation, Teaching
from service.training.schedule import Schedule

RECIPE = AlexNetRecipe(
    name="default",
    network="alexnet_v2",
    schedule=Schedule(
        epochs=320,
        batch_size=64,
        learning_rate=1e-3,
        warmup_epochs=5,
        cosine=True,
        weight_decay=0.02,
        average_decay=0.998,
        swa_share=0.25,
    ),
    batch_norm=True,
    augmentation=Augmentation(flip=True, min_area=0.25, color=0.25, mixup=1.0, cutmix=0.5, unmixed=0.15),
    teaching=Teaching("efficientnet_lite2", temperature=2.0, feature_weight=1.0),
    scale=1 / 127.5,
    offset=-1.0,
    refit=True,
)
