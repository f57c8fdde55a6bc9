"""The split of a folder that holds parts: taken as given, without near-duplicates in two parts."""

import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from service.data.check import CheckedPhotograph, DataCheck, Finding
from service.data.dataset import open_dataset
from service.data.folder import read_folder
from service.data.given_split import take_given_split
from service.data.parts import PARTS, Part
from service.data.split import Split, parse_split, split_to_json
from service.errors import DatasetError
from service.imaging.limits import ImageLimits

FOLDERS: dict[Part, str] = {"train": "training", "validation": "val", "test": "Test"}


def _photograph(part: Part, label: str, number: int, perceptual_hash: int | None = None) -> CheckedPhotograph:
    random = np.random.default_rng([PARTS.index(part), ord(label), number])
    digest = random.bytes(32)
    hash_value = int.from_bytes(digest) if perceptual_hash is None else perceptual_hash
    path = Path("/data", FOLDERS[part], label, f"{number}.jpg")
    return CheckedPhotograph(path, label, digest.hex(), hash_value, part_folder=FOLDERS[part])


def _check(photographs: Sequence[CheckedPhotograph], *parts: Part) -> DataCheck:
    ordered = tuple(sorted(photographs, key=lambda one: (one.label, one.path.name, one.file)))
    return DataCheck(("a", "b"), ordered, (), parts or PARTS)


def _photographs(*parts: Part, number: int = 40) -> list[CheckedPhotograph]:
    return [_photograph(part, label, index) for part in parts for label in "ab" for index in range(number)]


def _part_of(split: Split) -> dict[str, Part]:
    return {photograph.file: part for part in PARTS for photograph in split.photographs[part]}


def test_the_parts_are_taken_whatever_the_seed() -> None:
    check = _check(_photographs(*PARTS))
    for seed in (0, 1):
        split = take_given_split(check, seed)
        assert _part_of(split) == {photograph.file: photograph.part for photograph in check.photographs}
        assert (split.seed, split.set_aside) == (seed, ())
        assert split.fractions == (1 / 3, 1 / 3, 1 / 3)


def test_a_stored_given_split_gives_back_every_part() -> None:
    split = take_given_split(_check(_photographs(*PARTS, number=3)), seed=0)
    stored = parse_split(split_to_json(split).encode(), "of a test")
    assert {entry.file: entry.part for entry in stored.photographs} == _part_of(split)
    assert "training/a/0.jpg" in _part_of(split)


@pytest.mark.parametrize("lacking", ["validation", "test"])
def test_a_part_that_lacks_is_drawn_from_train(lacking: Part) -> None:
    given = tuple(part for part in PARTS if part != lacking)
    photographs = _photographs(*given, number=200)
    near = [
        _photograph("train", one.label, 500 + place, one.perceptual_hash) for place, one in enumerate(photographs[:9])
    ]
    check = _check([*photographs, *near], *given)
    split, again, other = (take_given_split(check, seed) for seed in (0, 0, 1))
    assert _part_of(split) == _part_of(again) != _part_of(other)
    drawn = split.photographs[lacking]
    assert {photograph.part for photograph in drawn} == {"train"}
    assert {photograph.label for photograph in drawn} == {"a", "b"}
    assert len(drawn) / 400 == pytest.approx(0.15 / 0.85, abs=0.06)
    (kept,) = (part for part in given if part != "train")
    assert all(photograph.part == kept for photograph in split.photographs[kept])
    assert len(split.photographs[kept]) == 400
    for pair in zip(photographs, near, strict=False):
        assert len({_part_of(split).get(photograph.file) for photograph in pair} - {None}) == 1
    lost = {file for finding in split.set_aside for file in finding.files}
    assert lost
    assert {*_part_of(split), *lost} == {photograph.file for photograph in check.photographs}


def test_near_duplicates_in_two_parts_leave_train() -> None:
    scene = [_photograph(part, "a", 900, perceptual_hash=1) for part in PARTS]
    pair = [_photograph(part, "b", 901, perceptual_hash=(1 << 256) - 2) for part in ("train", "validation")]
    check = _check([*_photographs(*PARTS), *scene, *pair])
    split = take_given_split(check, seed=0)
    part_of = _part_of(split)
    assert {file: part_of.get(file) for file in ("training/a/900.jpg", "val/a/900.jpg", "Test/a/900.jpg")} == {
        "training/a/900.jpg": None, "val/a/900.jpg": None, "Test/a/900.jpg": "test",
    }  # fmt: skip
    assert (part_of.get("training/b/901.jpg"), part_of["val/b/901.jpg"]) == (None, "validation")
    detail = "It is not used in train. It is nearly the same as Test/a/900.jpg in test."
    assert Finding("near-duplicates-apart", ("training/a/900.jpg",), detail) in split.set_aside
    assert len(split.set_aside) == 3


def test_a_class_that_near_duplicates_empty_is_named() -> None:
    copy = _photograph("train", "a", 5, perceptual_hash=1)
    others = [one for one in _photographs(*PARTS, number=9) if (one.label, one.part) != ("a", "train")]
    original = _photograph("test", "a", 10, perceptual_hash=1)
    with pytest.raises(DatasetError, match="The part train has no usable photograph of a") as raised:
        take_given_split(_check([*others, copy, original]), seed=0)
    assert "seed" not in str(raised.value)


def test_too_few_photographs_to_draw_from_are_named() -> None:
    photographs = [one for one in _photographs("train", "test", number=9) if one.label == "a" or one.path.stem == "0"]
    with pytest.raises(
        DatasetError, match=r"gives no validation part, so train is divided\. .* Or add a folder validat"
    ):
        take_given_split(_check(photographs, "train", "test"), seed=0)


def test_a_split_folder_is_opened_as_it_is(tmp_path: Path, drawn_folder: Path) -> None:
    for label in ("roses", "tulips"):
        for number, part in ((0, "test"), (1, "train"), (2, "train"), (3, "val")):
            (tmp_path / part / label).mkdir(parents=True, exist_ok=True)
            shutil.copy(drawn_folder / label / f"{number:03d}.jpg", tmp_path / part / label / f"{number}.jpg")
    shutil.copy(tmp_path / "test" / "roses" / "0.jpg", tmp_path / "train" / "roses" / "#.jpg")
    (tmp_path / "val" / "roses" / "broken.jpg").write_bytes(b"")
    dataset = open_dataset(read_folder(tmp_path), 2, ImageLimits())
    assert {part: [photograph.file for photograph in dataset.split.photographs[part]] for part in PARTS} == {
        "train": [f"train/{label}/{number}.jpg" for label in ("roses", "tulips") for number in (1, 2)],
        "validation": ["val/roses/3.jpg", "val/tulips/3.jpg"],
        "test": ["test/roses/0.jpg", "test/tulips/0.jpg"],
    }
    said = {finding.kind: finding.sentence for finding in dataset.check.findings}
    same = "Same pixels as test/roses/0.jpg, which alone is used."
    assert said["duplicate"] == f"duplicate: train/roses/#.jpg. {same}"
    assert "val/roses/broken.jpg" in said["not-an-image"]
    assert said["given-split"].endswith("gives the parts train, validation and test. They are taken as they are.")


def test_a_part_whose_photographs_are_broken_is_not_drawn(tmp_path: Path, drawn_folder: Path) -> None:
    for label in ("roses", "tulips"):
        shutil.copytree(drawn_folder / label, tmp_path / "train" / label)
        (tmp_path / "test" / label).mkdir(parents=True)
        (tmp_path / "test" / label / "1.jpg").write_bytes(b"")
    with pytest.raises(DatasetError, match=r"The part test has no usable photograph of roses and tulips\. .* 2 of 26 "):
        open_dataset(read_folder(tmp_path), 2, ImageLimits())
