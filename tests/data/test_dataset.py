from pathlib import Path

import numpy as np
import pytest

from service.data import batches
from service.data import dataset as dataset_module
from service.data.cache import PixelCache
from service.data.check import DataCheck
from service.data.dataset import Dataset, open_dataset
from service.data.folder import read_folder
from service.data.parts import PARTS
from service.data.stored import is_stored
from service.errors import DatasetError, TrainingError
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


def open_cached(folder: Path, cache: Path, memory_bytes: int = 0) -> Dataset:
    return open_dataset(read_folder(folder), 2, ImageLimits(), cache=PixelCache(cache, 10**9, memory_bytes))


def test_photographs_are_the_same_from_memory_and_cache(dataset: Dataset, drawn_folder: Path, tmp_path: Path) -> None:
    cached = open_cached(drawn_folder, tmp_path / "decoded")
    for in_memory, on_disk in (
        (dataset.full_images("train", "test"), cached.full_images("train", "test")),
        (dataset.squares("validation"), cached.squares("validation")),
    ):
        assert is_stored(on_disk.images)
        assert not is_stored(in_memory.images)
        assert on_disk.class_indices.tolist() == in_memory.class_indices.tolist()
        for image, kept in zip(in_memory.images, on_disk.images, strict=True):
            np.testing.assert_array_equal(kept, image)


def test_the_next_training_decodes_nothing(
    drawn_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    open_cached(drawn_folder, tmp_path / "decoded").full_images("train")
    again = open_cached(drawn_folder, tmp_path / "decoded", memory_bytes=10**12)  # there is room in memory by now

    def fail(*_: object, **__: object) -> None:
        raise AssertionError("decoded again")

    monkeypatch.setattr(batches, "decode_image", fail)
    assert is_stored(again.full_images("train").images)


def test_a_folder_that_fits_into_memory_writes_nothing(drawn_folder: Path, tmp_path: Path) -> None:
    num_bytes = 60 * (3 * 256 * 341 + 4)
    for memory_bytes, is_larger in ((2 * num_bytes, False), (2 * num_bytes - 2, True)):
        dataset = open_cached(drawn_folder, tmp_path / str(is_larger), memory_bytes)
        assert dataset.is_larger_than_memory is is_larger
        dataset.full_images("test")
        assert (tmp_path / str(is_larger)).exists() is is_larger


def copy_photographs(source: Path, target: Path) -> None:
    for label in ("roses", "tulips"):
        (target / label).mkdir(parents=True)
        for path in (source / label).iterdir():
            (target / label / path.name).write_bytes(path.read_bytes())


def test_a_changed_photograph_is_decoded_anew(drawn_folder: Path, tmp_path: Path) -> None:
    copy_photographs(drawn_folder, tmp_path / "photographs")
    first = open_cached(tmp_path / "photographs", tmp_path / "decoded")
    first.full_images("train")
    path = first.split.photographs["train"][0].path
    path.write_bytes(path.read_bytes() + b"a byte behind the image")
    second = open_cached(tmp_path / "photographs", tmp_path / "decoded")
    second.full_images("train")
    assert len(list((tmp_path / "decoded").glob("*.pixels"))) == 2


def test_a_photograph_that_changed_after_the_check_is_refused(drawn_folder: Path, tmp_path: Path) -> None:
    copy_photographs(drawn_folder, tmp_path / "photographs")
    cached = open_cached(tmp_path / "photographs", tmp_path / "decoded")
    one, other = (photograph.path for photograph in cached.split.photographs["train"][:2])
    one.write_bytes(other.read_bytes())
    with pytest.raises(DatasetError, match=r"has changed since it was checked\. It is another file now"):
        cached.full_images("train")


def test_a_cache_without_room_stops_the_training(drawn_folder: Path, tmp_path: Path) -> None:
    cache = PixelCache(tmp_path, 10**6, memory_bytes=0)
    dataset = open_dataset(read_folder(drawn_folder), 2, ImageLimits(), cache=cache)
    with pytest.raises(TrainingError, match="Raise --max-decoded-bytes to"):
        dataset.full_images("train")
