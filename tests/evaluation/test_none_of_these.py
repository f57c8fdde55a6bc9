from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.fakes import FakeEngine, fake_version

from service.engines.engine import Scores
from service.engines.open_version import ServedVersion
from service.errors import DatasetError
from service.evaluation.none_of_these import count_confidence, describe_none_of_these, measure_none_of_these
from service.evaluation.score import ScoredImage
from service.imaging.limits import ImageLimits
from service.imaging.pixels import Pixels

LIMITS = ImageLimits()


class GreyEngine(FakeEngine):
    """Its first probability is the grey / 255, its energy the grey itself."""

    def run(self, images: Pixels) -> Scores:
        grey = images[:, 112, 112, 0].astype(np.float32)
        rows = np.zeros((len(images), 5), np.float32)
        rows[:, 0], rows[:, 1] = grey / 255, 1 - grey / 255
        return Scores(rows, energy=grey)


@pytest.fixture
def opened() -> ServedVersion:
    """A version that is confident from 0.7 on, up to an energy of 240."""
    version = fake_version(GreyEngine())
    metadata = version.metadata.model_copy(update={"confidence_threshold": 0.7, "max_energy": 240.0})
    return ServedVersion(replace(version.verified, metadata=metadata), GreyEngine())


def _grey(folder: Path, *values: int) -> list[Path]:
    for value in values:
        Image.new("RGB", (8, 8), (value,) * 3).save(folder / f"{value}.png")
    return [folder / f"{value}.png" for value in values]


EVALUATED = [
    ScoredImage(Path(), np.array([probability, 1 - probability], np.float32), None, energy)
    for probability, energy in ((0.9, 1.0), (0.6, 1.0), (0.9, 250.0), (0.7, None))
]


def test_answers_that_are_not_confident_are_counted(opened: ServedVersion, tmp_path: Path) -> None:
    files = _grey(tmp_path, 10, 100, 150, 200, 250)
    seen: list[tuple[int, int]] = []
    measured = measure_none_of_these(opened, files, EVALUATED, LIMITS, progress=lambda *counts: seen.append(counts))
    assert seen[-1] == (5, 5)
    found = measured.to_dict()
    assert (found["num_images"], found["num_not_confident"], found["share"]) == (5, 3, 0.6)
    assert found["by_reason"] == {"low-probability": 2, "unlike-training": 1}
    assert found["by_class"] == [
        {"label": "daisy", "num_images": 3, "num_confident": 1},
        {"label": "dandelion", "num_images": 2, "num_confident": 1},
    ]
    assert found["kept"] == {"num_photographs": 4, "num_confident": 2, "share": 0.5}
    said = describe_none_of_these(measured)
    assert "60.0% not confident, 3 of 5 images, 95 % interval 23.1% to 88.2%" in said
    assert "2 low-probability, 1 unlike-training" in said
    assert "daisy 3 (1 confident), dandelion 2 (1 confident)" in said
    assert "50.0% confident, 2 of 4 photographs" in said


def test_confident_answers_to_photographs_and_others_are_counted(opened: ServedVersion, tmp_path: Path) -> None:
    (tmp_path / "broken.jpg").write_text("no image")
    broken = [tmp_path / "broken.jpg"]
    sources = {"walls": _grey(tmp_path, 10, 100, 200), "none": broken, "floors": broken + _grey(tmp_path, 250)}
    rows = np.array([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8], [0.9, 0.1]], np.float32)
    scores = Scores(rows, energy=np.array([1, 1, 1, 250], np.float32))
    given = opened.engine, opened.confident_rule, scores, np.array([0, 1, 0, 1])
    found = count_confidence(*given, sources, opened.rule, LIMITS)
    assert (found.num_photographs, found.num_confident) == (4, 2)
    assert (found.num_errors, found.num_confident_errors) == (3, 1)
    assert [tuple(one.model_dump().values()) for one in found.none_of_these] == [("walls", 3, 2), ("floors", 1, 0)]


def test_an_image_that_cannot_be_scored_does_not_count(opened: ServedVersion, tmp_path: Path) -> None:
    (tmp_path / "broken.jpg").write_text("no image")
    measured = measure_none_of_these(opened, [tmp_path / "broken.jpg", *_grey(tmp_path, 200)], EVALUATED, LIMITS)
    assert (measured.num_images, measured.num_not_confident) == (1, 0)
    assert [scored.path.name for scored in measured.unscored] == ["broken.jpg"]
    with pytest.raises(DatasetError, match=r"0 of 1 images for --none-of-these could be scored.*broken\.jpg"):
        measure_none_of_these(opened, [tmp_path / "broken.jpg"], EVALUATED, LIMITS)
