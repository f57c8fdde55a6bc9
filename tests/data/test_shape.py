"""A folder of another shape: the message names the folder that was meant."""

import re
from pathlib import Path

import pytest

from service.data.folder import read_folder
from service.data.shape import is_made_by_program, list_visible
from service.errors import DatasetError

SYSTEM_FOLDERS = (
    "lost+found", "@eaDir", "$RECYCLE.BIN", "$Recycle.Bin", "System Volume Information", "__pycache__", "__MACOSX",
    "#recycle", "@Recycle", "#snapshot", "LOST.DIR", "FOUND.000", ".Trash-1000", "Network Trash Folder",
)  # fmt: skip
SYSTEM_FILES = ("Icon\r", "Icon\uf00d", "Thumbs.db", "thumbs.db", "desktop.ini", "Desktop.ini", ".DS_Store", "._1.jpg")


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


def _make_parts(folder: Path, *parts: str) -> Path:
    return _make(folder, *(f"{part}/{label}/1.jpg" for part in parts for label in ("roses", "tulips")))


@pytest.mark.parametrize("other", ["dev/roses/1.jpg", "more/1.jpg", "train/1.jpg", "valid/notes.txt"])
def test_a_folder_that_is_no_part_is_named(tmp_path: Path, other: str) -> None:
    _make(_make_parts(tmp_path, "train", "Val", "testing"), other.replace("roses", "tulips"), other)
    assert f"but also {other.split('/')[0]}. " in _refusal(tmp_path, may_lack_classes=False)


def test_parts_that_lie_deeper_are_named(tmp_path: Path, may_lack_classes: bool) -> None:
    _make_parts(tmp_path / "data", "train", "test")
    assert _refusal(tmp_path, may_lack_classes).endswith(f"Give {tmp_path / 'data'} instead.")


def test_parts_without_one_to_train_on_are_refused(tmp_path: Path) -> None:
    _make_parts(tmp_path, "val", "test")
    assert "but none to train on. Add a folder train" in _refusal(tmp_path, may_lack_classes=False)
    assert read_folder(tmp_path, may_lack_classes=True).given_parts == ("validation", "test")


def test_photographs_below_a_class_of_a_part_are_named(tmp_path: Path, may_lack_classes: bool) -> None:
    _make(_make_parts(tmp_path, "train", "test"), "test/lilies/2024/1.jpg")
    assert "photographs of lilies lie deeper, in lilies/2024" in _refusal(tmp_path, may_lack_classes)


def test_a_class_folder_alone_names_its_parent(tmp_path: Path, may_lack_classes: bool) -> None:
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


@pytest.mark.parametrize("name", SYSTEM_FOLDERS)
def test_folders_that_systems_make_are_no_classes(tmp_path: Path, name: str) -> None:
    _make(tmp_path, "a/1.jpg", "b/1.jpg", f"{name}/left/1.jpg", f"b/{name}/1.jpg")
    folder = read_folder(tmp_path)
    assert folder.class_names == ("a", "b")
    assert len(folder.photographs) == 2


def test_files_that_systems_make_are_no_photographs(tmp_path: Path) -> None:
    _make(tmp_path, "1.jpg", *SYSTEM_FILES)
    assert [path.name for path in list_visible(tmp_path)] == ["1.jpg"]


@pytest.mark.parametrize(
    "file",
    [
        "runs/flowers-0123abcd/data_check.json",
        "model_store/flowers/1/saved_model.pb",
        "my store/flowers/12/saved_model.pb",
        "my store/flowers/candidates/3/saved_model.pb",
        "garden/candidates/3/saved_model.pb",
        "my runs/flowers-0123abcd-2/data_check.json",
        "flowers-0123abcd/data_check.json",
        "flowers/1/saved_model.pb",
        "cache/CACHEDIR.TAG",
        "venv/pyvenv.cfg",
    ],
)
def test_what_commands_leave_in_the_folder_is_no_class(tmp_path: Path, file: str) -> None:
    assert read_folder(_make(tmp_path, "a/1.jpg", "b/1.jpg", file)).class_names == ("a", "b")


def test_an_empty_folder_of_ours_is_no_class(tmp_path: Path) -> None:
    (tmp_path / "runs" / "flowers-0123abcd").mkdir(parents=True)
    (tmp_path / "model_store").mkdir()
    assert is_made_by_program(tmp_path / "runs")
    assert read_folder(_make(tmp_path, "a/1.jpg", "b/1.jpg")).class_names == ("a", "b")
    assert read_folder(_make(tmp_path, "runs/1.jpg", "model_store/1.jpg")).class_names == (
        "a", "b", "model_store", "runs",
    )  # fmt: skip


def test_a_folder_of_a_year_is_no_model(tmp_path: Path) -> None:
    _make(tmp_path, "a/1.jpg", "b/2024/metadata.json", "b/2024/1.jpg")
    with pytest.raises(DatasetError, match="lie deeper, in b/2024"):
        read_folder(tmp_path)
