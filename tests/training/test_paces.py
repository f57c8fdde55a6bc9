from dataclasses import replace
from pathlib import Path

import keras
import pytest
from support.fitting import RECIPE, tiny_network

from service.data.dataset import open_dataset
from service.data.folder import read_folder
from service.imaging.limits import ImageLimits
from service.networks.alexnet import NETWORKS
from service.networks.backbones import Backbone
from service.training import paces
from service.training.paces import Paces, measure_paces
from service.training.recipe import Teaching


def load_small(name: str) -> Backbone:
    """A backbone whose features are an image's mean colour."""
    images = keras.Input((224, 224, 3))
    model = keras.Model(images, keras.layers.GlobalAveragePooling2D()(images))
    return Backbone(name, model, lambda pixels: keras.ops.cast(pixels, "float32") / 255)


def test_what_is_asked_is_measured_on_real_steps(
    drawn_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    monkeypatch.setitem(NETWORKS, "tiny", tiny_network)
    monkeypatch.setattr(paces, "load_backbone", load_small)
    trained: list[int] = []
    step = keras.Model.train_on_batch

    def watched(model, images, *given, **named):  # type: ignore[no-untyped-def]
        trained.append(len(images))
        return step(model, images, *given, **named)

    monkeypatch.setattr(keras.Model, "train_on_batch", watched)
    dataset = open_dataset(read_folder(drawn_folder), 2, ImageLimits())
    recipe = replace(RECIPE, teaching=Teaching("mean_color", num_views=2, epochs=3, feature_weight=1.0))
    measured = measure_paces(dataset, recipe, "cpu", 64, teacher=False, network=False)
    assert measured == Paces(measured.decode)
    assert measured.decode > 0
    assert not trained
    measured = measure_paces(dataset, recipe, "cpu", 64, teacher=True, network=True)
    assert trained == [32] * 4 + [recipe.schedule.batch_size] * 4
    assert all(0 < (pace or 0) < 1 for pace in vars(measured).values())
