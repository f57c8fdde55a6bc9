"""A folder of another shape: the message names the folder that was meant."""

import re
from pathlib import Path

import pytest

from service.data.folder import read_folder
from service.errors import DatasetError


def _make(folder: Path, *files: str) -> Path:
    for file in files:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_bytes(b"x")
    return folder


def _refusal(path: Path, may_lack_classes: bool) -> str:
    with pytest.raises(DatasetError) as raised:
        read_folder(path, may_lack_classes=may_lack_classes)
    assert str(raised.value).isprintable()
    return str(raised.value)


@pytest.fixture(params=[False, True], ids=["training", "evaluation"])
def may_lack_classes(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.mark.parametrize(
    ("place", "others"),
    [
        ("flower_photos", ()),
        ("flower_photos", ("__MACOSX/roses/._1.jpg", "read me/licence.txt", "empty/.hidden")),
        ("data/images", ()),
        ("a/b/c", ()),
    ],
)
def test_class_folders_that_lie_deeper_are_named(
    tmp_path: Path, place: str, others: tuple[str, ...], may_lack_classes: bool
) -> None:
    _make(tmp_path, f"{place}/roses/1.jpg", f"{place}/tulips/1.JPG", *others)
    assert _refusal(tmp_path, may_lack_classes).endswith(f"Give {tmp_path / place} instead.")


def test_photographs_below_the_class_are_named(tmp_path: Path, may_lack_classes: bool) -> None:
    _make(tmp_path, *(f"{label}/{year}/1.jpg" for label in ("roses", "tulips") for year in (2024, 2025)))
    message = _refusal(tmp_path, may_lack_classes)
    assert "roses/2024, roses/2025, tulips/2024 and tulips/2025" in message
    assert "Move them up into roses and tulips" in message


def test_one_class_with_its_photographs_deeper_is_named(tmp_path: Path, may_lack_classes: bool) -> None:
    _make(tmp_path, "roses/1.jpg", "tulips/1.jpg", "lilies/notes.txt", "lilies/new/raw/1.png", "daisy/x/1.heic")
    message = _refusal(tmp_path, may_lack_classes)
    assert "photographs of daisy and lilies lie deeper, in daisy/x and lilies/new/raw" in message
    assert "Move them up into daisy and lilies" in message


def test_a_folder_of_parts_is_called_so(tmp_path: Path, may_lack_classes: bool) -> None:
    _make(tmp_path, *(f"{part}/{label}/1.jpg" for part in ("train", "val", "test") for label in ("roses", "tulips")))
    message = _refusal(tmp_path, may_lack_classes)
    assert "holds the parts test, train and val" in message
    assert message.endswith(f"such as {tmp_path / 'train'}.")


def test_a_class_folder_given_alone_names_the_folder_around_it(tmp_path: Path, may_lack_classes: bool) -> None:
    _make(tmp_path / "garden", "roses/1.jpg", "tulips/1.jpg")
    assert _refusal(tmp_path / "garden" / "roses", may_lack_classes).endswith(f"around it, {tmp_path / 'garden'}.")
    _make(tmp_path / "loose", "1.jpg", "2.jpg")
    assert "holds photographs, but no class folders" in _refusal(tmp_path / "loose", may_lack_classes)


def test_an_archive_is_to_be_unpacked(tmp_path: Path, may_lack_classes: bool) -> None:
    _make(tmp_path, "photos.zip")
    assert re.search(r"photos\.zip is a file.* Unpack it", _refusal(tmp_path / "photos.zip", may_lack_classes))


def test_an_odd_name_deeper_reaches_no_terminal(tmp_path: Path, may_lack_classes: bool) -> None:
    _make(tmp_path, "roses/1.jpg", "tulips/raw/\x1b[31m/1.jpg")
    assert r"tulips/raw/\x1b[31m" in _refusal(tmp_path, may_lack_classes)
