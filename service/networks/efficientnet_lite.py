"""EfficientNet-Lite 0, 1 and 2, the pretrained networks that teach AlexNet.

Sources: Tan & Le (2019), "EfficientNet"; TensorFlow's EfficientNet-Lite (2020), which drops squeeze-and-excitation,
takes ReLU6 for swish, and scales neither the stem nor the head.
"""

import math
from dataclasses import dataclass

import keras
from keras import layers

_STEM_FILTERS, _HEAD_FILTERS = 32, 1280
_EPSILON = 1e-3


@dataclass(frozen=True)
class _Stage:
    repeats: int
    kernel_size: int
    strides: int
    expansion: int
    filters: int


_STAGES = (
    _Stage(1, 3, 1, 1, 16),
    _Stage(2, 3, 2, 6, 24),
    _Stage(2, 5, 2, 6, 40),
    _Stage(3, 3, 2, 6, 80),
    _Stage(3, 5, 1, 6, 112),
    _Stage(4, 5, 2, 6, 192),
    _Stage(1, 3, 1, 6, 320),
)


def efficientnet_lite(width: float, depth: float, name: str) -> keras.Model:
    """Build the network without its classifier.

    The model maps float32 (N, 224, 224, 3), RGB, (pixel - 127) / 128, to features, float32 (N, 1280). `width` is a
    factor of the stages' filters. `depth` is one of the repeats of all stages but the first and the last.
    """
    images = keras.Input((224, 224, 3), name="images")
    x = _norm_relu6(_conv(_STEM_FILTERS, 3, "conv_stem", strides=2)(images), "bn0")  # (N, 112, 112, 32)
    block = 0
    for number, stage in enumerate(_STAGES):
        fixed = number in (0, len(_STAGES) - 1)
        filters = _round_filters(stage.filters * width)
        for repeat in range(stage.repeats if fixed else math.ceil(stage.repeats * depth)):
            x = _inverted_residual(x, stage, filters, stage.strides if repeat == 0 else 1, f"blocks.{block}")
            block += 1
    x = _norm_relu6(_conv(_HEAD_FILTERS, 1, "conv_head")(x), "bn1")  # (N, 7, 7, 1280)
    features = layers.GlobalAveragePooling2D(name="features")(x)  # (N, 1280)
    return keras.Model(images, features, name=name)


def _inverted_residual(x: keras.KerasTensor, stage: _Stage, filters: int, strides: int, name: str) -> keras.KerasTensor:
    # Expand, filter each channel, project; the shortcut where shapes allow. Sandler et al. (2018), MobileNetV2.
    before, before_filters = x, int(x.shape[-1])
    if stage.expansion > 1:
        x = _norm_relu6(_conv(before_filters * stage.expansion, 1, f"{name}.expand_conv")(x), f"{name}.bn0")
    depthwise = layers.DepthwiseConv2D(
        stage.kernel_size, strides, "same", use_bias=False, name=f"{name}.depthwise_conv"
    )
    x = _norm_relu6(depthwise(x), f"{name}.bn1")
    x = layers.BatchNormalization(epsilon=_EPSILON, name=f"{name}.bn2")(_conv(filters, 1, f"{name}.project_conv")(x))
    return layers.Add(name=f"{name}.add")([before, x]) if strides == 1 and filters == before_filters else x


def _norm_relu6(x: keras.KerasTensor, name: str) -> keras.KerasTensor:
    x = layers.BatchNormalization(epsilon=_EPSILON, name=name)(x)
    return layers.ReLU(6.0, name=f"{name}.relu6")(x)


def _conv(filters: int, size: int, name: str, strides: int = 1) -> layers.Layer:
    return layers.Conv2D(filters, size, strides, "same", use_bias=False, name=name)


def _round_filters(filters: float) -> int:
    # To the nearest multiple of 8, but never down by more than a tenth.
    rounded = max(8, int(filters + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * filters else rounded
