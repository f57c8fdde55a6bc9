from pathlib import Path

import numpy as np
import pytest

from service.data import dataset as dataset_module
from service.data.check import DataCheck
from service.data.dataset import Dataset, open_dataset
from service.data.folder import read_folder
from service.data.parts import PARTS
from service.errors import DatasetError
from service.imaging.limits import ImageLimits


@pytest.fixture
def dataset(drawn_folder: Path) -> Dataset:
    return open_dataset(read_folder(drawn_folder), 2, ImageLimits())


def test_a_dataset_carries_check_split_and_seed(dataset: Dataset) -> None:
    assert dataset.seed == 2
    assert dataset.class_names == ("daisy", "dandelion", "roses", "sunflowers", "tulips")
    assert len(dataset.check.photographs) == 60
    assert set(dataset.split.photographs) == set(PARTS)


def test_the_check_is_reported_before_the_split(drawn_folder: Path, tmp_path: Path) -> None:
    for label in ("roses", "tulips"):
        (tmp_path / label).mkdir()
    for path in (drawn_folder / "roses").iterdir():
        (tmp_path / "roses" / path.name).write_bytes(path.read_bytes())
    (tmp_path / "tulips" / "1.jpg").write_text("no photograph")
    found: list[DataCheck] = []
    done: list[tuple[int, int]] = []
    with pytest.raises(DatasetError, match="tulips"):
        open_dataset(
            read_folder(tmp_path), 2, ImageLimits(),
            checking=lambda *counts: done.append(counts), found=found.append,
        )  # fmt: skip
    assert [len(check.photographs) for check in found] == [12]
    assert done[-1] == (13, 13)


def test_a_part_has_the_pixels_of_its_photographs(dataset: Dataset) -> None:
    for part in PARTS:
        photographs = dataset.split.photographs[part]
        labels = [dataset.class_names.index(photograph.label) for photograph in photographs]
        assert dataset.squares(part).class_indices.tolist() == labels
        assert np.asarray(dataset.squares(part).images).shape == (len(labels), 224, 224, 3)
        assert dataset.full_images(part).class_indices.tolist() == labels
        assert {image.shape for image in dataset.full_images(part).images} == {(256, 341, 3)}
    both = dataset.full_images("train", "validation")
    for one, other in zip(both.images, dataset.full_images("train").images, strict=False):
        assert one is other
    assert len(both.images) == sum(len(dataset.split.photographs[part]) for part in ("train", "validation"))


def test_each_part_is_decoded_once(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    first = dataset.squares("test"), dataset.full_images("train").images[0]

    def fail(*_: object) -> None:
        raise AssertionError("decoded again")

    monkeypatch.setattr(dataset_module, "load_squares", fail)
    monkeypatch.setattr(dataset_module, "load_full_images", fail)
    assert (dataset.squares("test"), dataset.full_images("train").images[0]) == first


def test_a_sample_is_spread_over_the_part(dataset: Dataset) -> None:
    num_photographs = len(dataset.split.photographs["train"])
    some = dataset.sample_squares("train", 5)
    assert len(some.images) <= 5
    assert len(set(some.class_indices.tolist())) >= 4
    np.testing.assert_array_equal(dataset.sample_squares("train", 512).images, dataset.squares("train").images)
    assert num_photographs > 5
