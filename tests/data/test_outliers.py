from pathlib import Path

import numpy as np
import pytest
from support.drawing import draw_photograph, encode

from service.data.outliers import NONE_OF_THESE, list_outliers, load_outliers
from service.errors import DatasetError
from service.imaging.limits import ImageLimits, ResizeRule


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    for name, number in (("cars", 5), ("dogs", 2), (".hidden", 1)):
        (tmp_path / name).mkdir()
        for seed in range(number):
            photograph = encode(draw_photograph(0, seed, size=(320, 256)))
            (tmp_path / name / f"{seed}.jpg").write_bytes(photograph)
        (tmp_path / name / "LICENCE.txt").write_text("CC0")
    (tmp_path / "README.md").write_text("two sources")
    return tmp_path


def names(found: dict[str, list[Path]]) -> dict[str, list[str]]:
    return {source: [path.stem for path in paths] for source, paths in found.items()}


def test_each_source_lists_its_images(sources: Path) -> None:
    assert names(list_outliers(sources)) == {"cars": ["0", "1", "2", "3", "4"], "dogs": ["0", "1"]}


def test_a_large_source_gives_some_images_evenly(sources: Path) -> None:
    assert names(list_outliers(sources, most=2)) == {"cars": ["0", "2"], "dogs": ["0", "1"]}


def test_a_held_out_source_is_left_out(sources: Path) -> None:
    assert names(list_outliers(sources, without=("cars", "boats"))) == {"dogs": ["0", "1"]}


def test_a_folder_without_sources_is_refused(sources: Path) -> None:
    for folder, why in ((sources / "cars", "no images in subfolders"), (sources / "none", "There is no folder")):
        with pytest.raises(DatasetError, match=why):
            list_outliers(folder)


def test_outliers_have_no_class_and_the_size_of_photographs(sources: Path) -> None:
    paths = [path for source in list_outliers(sources).values() for path in source]
    loaded = load_outliers(paths, ResizeRule(), ImageLimits())
    assert [image.shape for image in loaded.images] == [(256, 320, 3)] * 7
    np.testing.assert_array_equal(loaded.class_indices, [NONE_OF_THESE] * 7)


def test_a_broken_outlier_is_named(sources: Path) -> None:
    (sources / "dogs" / "1.jpg").write_bytes(b"no image")
    with pytest.raises(DatasetError, match=r"dogs/1\.jpg cannot be read as an image.* Remove it"):
        load_outliers(list_outliers(sources)["dogs"], ResizeRule(), ImageLimits())
