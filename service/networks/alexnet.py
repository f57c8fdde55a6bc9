"""AlexNet of Krizhevsky, Sutskever & Hinton (2012) in the two variants of the reference article.

They depart from the network of 2012 as follows.

* Half the width. The paper splits every layer over two GPUs of 3 GB. 48, 128, 192, 192 and 128 filters are one GPU's
  half. It suffices for five classes.
* No local response normalisation. It gained the paper 1.4 points, and here nothing at three times the time
  (`benchmarks/accuracy.md`). `batch_norm=True` normalises before every ReLU for training only. `training/fold.py`
  folds it into the neighbouring weights, so what is shipped is the plain network.
* ReLU and overlapping pooling (3/2) are the paper's own. Without ReLU it would saturate.
* Dropout 0.2 instead of 0.5, before hidden dense layers of 2,048, or of 1,024 and 128, units instead of 4,096.
"""

from collections.abc import Callable

import keras
from keras import layers


def alexnet_v1(num_classes: int, *, batch_norm: bool = False, dropout: float = 0.2) -> keras.Model:
    """Build AlexNet with two dense layers of 2,048 units. It has 14,591,685 parameters at 5 classes.

    The model maps float32 (N, 224, 224, 3) to logits, float32 (N, num_classes). With `batch_norm` it normalises before
    each ReLU, and these layers have no bias. `dropout` is the share of dropped activations. Both are for training only.
    """
    return _alexnet("alexnet_v1", (2048, 2048), num_classes, batch_norm, dropout)


def alexnet_v2(num_classes: int, *, batch_norm: bool = False, dropout: float = 0.2) -> keras.Model:
    """Build AlexNet with dense layers of 1,024 and 128 units. It has 5,797,317 parameters at 5 classes."""
    return _alexnet("alexnet_v2", (1024, 128), num_classes, batch_norm, dropout)


NETWORKS: dict[str, Callable[..., keras.Model]] = {"alexnet_v1": alexnet_v1, "alexnet_v2": alexnet_v2}


HIDDEN_LAYER = "dense6_relu"
"""Activations of the first dense layer. They are the network's features of an image."""


def _alexnet(name: str, hidden: tuple[int, int], num_classes: int, batch_norm: bool, dropout: float) -> keras.Model:
    def rectified(x: keras.KerasTensor, layer: layers.Layer) -> keras.KerasTensor:
        x = layer(x)
        if batch_norm:
            x = layers.BatchNormalization(momentum=0.95, epsilon=1e-3, name=f"{layer.name}_norm")(x)
        return layers.ReLU(name=f"{layer.name}_relu")(x)

    def conv(filters: int, size: int, layer_name: str, strides: int = 1, padding: str = "same") -> layers.Layer:
        return layers.Conv2D(
            filters, size, strides, padding, use_bias=not batch_norm, kernel_initializer="he_normal", name=layer_name
        )  # fmt: skip

    def dense(units: int, layer_name: str) -> layers.Layer:
        return layers.Dense(units, use_bias=not batch_norm, kernel_initializer="he_normal", name=layer_name)

    images = keras.Input((224, 224, 3), name="images")
    x = layers.ZeroPadding2D(((1, 2), (1, 2)), name="pad")(images)  # (N, 227, 227, 3)
    # The paper prints 224, but 55 = (227 - 11) / 4 + 1 needs 227.
    x = rectified(x, conv(48, 11, "conv1", strides=4, padding="valid"))  # (N, 55, 55, 48)
    x = layers.MaxPooling2D(3, 2, name="pool1")(x)  # (N, 27, 27, 48)
    x = rectified(x, conv(128, 5, "conv2"))  # (N, 27, 27, 128)
    x = layers.MaxPooling2D(3, 2, name="pool2")(x)  # (N, 13, 13, 128)
    x = rectified(x, conv(192, 3, "conv3"))  # (N, 13, 13, 192)
    x = rectified(x, conv(192, 3, "conv4"))  # (N, 13, 13, 192)
    x = rectified(x, conv(128, 3, "conv5"))  # (N, 13, 13, 128)
    x = layers.MaxPooling2D(3, 2, name="pool5")(x)  # (N, 6, 6, 128)
    x = layers.Flatten(name="flatten")(x)  # (N, 4608)
    x = layers.Dropout(dropout, name="dropout6")(x)
    x = rectified(x, dense(hidden[0], "dense6"))  # (N, 2048) or (N, 1024)
    x = layers.Dropout(dropout, name="dropout7")(x)
    x = rectified(x, dense(hidden[1], "dense7"))  # (N, 2048) or (N, 128)
    logits = layers.Dense(num_classes, dtype="float32", name="logits")(x)  # (N, num_classes)
    return keras.Model(images, logits, name=name)
