"""Files of a version, written for a small network that was really trained."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from support.drawing import CLASS_NAMES
from support.fitting import RECIPE, tiny_network

from service.data.dataset import Dataset
from service.errors import PublishError
from service.store.layout import METADATA_FILE
from service.store.metadata import read_metadata
from service.training.calibrate import calibrate
from service.training.export import saved_model, version
from service.training.export.version import write_version
from service.training.recipe import recipe_values
from service.training.trained_network import TrainedNetwork


@pytest.fixture
def trained(dataset: Dataset) -> TrainedNetwork:
    """Untrained, which no check of the export minds."""
    held_out = dataset.squares("validation")
    logits = np.random.default_rng(0).normal(0, 1, (len(held_out.images), 5)).astype(np.float32)
    calibration = calibrate(logits, held_out.class_indices, "validation")
    network = tiny_network(len(CLASS_NAMES))
    return TrainedNetwork(network, 1 / 100, -0.75, calibration, held_out, recipe_values(RECIPE), ())


@pytest.mark.long
def test_a_part_that_calibrates_is_stated_once(dataset: Dataset, trained: TrainedNetwork, tmp_path: Path) -> None:
    test = dataset.squares("test")
    logits = np.random.default_rng(0).normal(0, 1, (len(test.images), 5)).astype(np.float32)
    plain = tmp_path / "plain.png"
    Image.new("RGB", (300, 300)).save(plain)
    by_test = replace(trained, calibration=calibrate(logits, test.class_indices, "test"), held_out=test)
    for network, parts in ((by_test, ["test"]), (trained, ["validation", "test"])):
        folder = tmp_path / parts[0]
        write_version(folder, "drawn", network, replace(dataset, held_out_sources={"plain": [plain]}))
        metadata = read_metadata(folder / METADATA_FILE)
        assert [metrics.part for metrics in metadata.metrics] == parts
        counted = metadata.confidence
        assert counted is not None
        assert counted.num_photographs == len(dataset.split.photographs["test"])
        assert [(one.source, one.num_images) for one in counted.none_of_these] == [("plain", 1)]


class Exported(Exception):
    """The light networks would now be written."""


def test_int8_is_fitted_to_the_whole_training_part(
    dataset: Dataset, trained: TrainedNetwork, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: dict[str, Any] = {}

    def export(*_: object, **named: Any) -> None:
        given.update(named)
        raise Exported

    monkeypatch.setattr(version, "export_cpu_models", export)
    with pytest.raises(Exported):
        write_version(tmp_path, "drawn", trained, dataset)
    np.testing.assert_array_equal(given["calibration"], dataset.squares("train").images)
    np.testing.assert_array_equal(given["images"], dataset.squares("validation").images)
    assert (given["scale"], given["offset"]) == (1 / 100, -0.75)


@pytest.mark.long
def test_int8_is_fitted_to_at_most_512_photographs(
    dataset: Dataset, trained: TrainedNetwork, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, int]] = []

    def sample(_: Dataset, part: str, number: int) -> None:
        asked.append((part, number))
        raise Exported

    monkeypatch.setattr(Dataset, "sample_squares", sample)
    with pytest.raises(Exported):
        write_version(tmp_path, "drawn", trained, dataset)
    assert asked == [("train", 512)]


def test_a_savedmodel_that_answers_otherwise_is_refused(
    dataset: Dataset, trained: TrainedNetwork, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def export(network: Any, folder: Path, *, temperature: float, **numbers: float) -> None:
        saved_model.export_saved_model(network, folder, temperature=temperature * 1.1, **numbers)

    monkeypatch.setattr(version, "export_saved_model", export)
    with pytest.raises(PublishError, match="differs from the trained network"):
        write_version(tmp_path, "drawn", trained, dataset)
    assert not (tmp_path / METADATA_FILE).exists()
