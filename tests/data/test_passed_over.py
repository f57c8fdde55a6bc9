from pathlib import Path

import pytest

from service.data.folder import read_folder
from service.data.passed_over import is_made_by_program, list_visible
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


@pytest.mark.parametrize("name", SYSTEM_FOLDERS)
def test_folders_that_systems_make_are_no_classes_and_no_photographs(tmp_path: Path, name: str) -> None:
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
        "my runs/flowers-0123abcd-2/data_check.json",
        "flowers-0123abcd/data_check.json",
        "flowers/1/saved_model.pb",
        "cache/CACHEDIR.TAG",
        "venv/pyvenv.cfg",
    ],
)
def test_what_commands_leave_in_the_folder_is_no_class(tmp_path: Path, file: str) -> None:
    assert read_folder(_make(tmp_path, "a/1.jpg", "b/1.jpg", file)).class_names == ("a", "b")


def test_an_empty_folder_of_ours_is_no_class_and_one_with_files_is(tmp_path: Path) -> None:
    (tmp_path / "runs" / "flowers-0123abcd").mkdir(parents=True)
    (tmp_path / "model_store").mkdir()
    assert is_made_by_program(tmp_path / "runs")
    assert read_folder(_make(tmp_path, "a/1.jpg", "b/1.jpg")).class_names == ("a", "b")
    assert read_folder(_make(tmp_path, "runs/1.jpg", "model_store/1.jpg")).class_names == (
        "a", "b", "model_store", "runs",
    )  # fmt: skip


def test_a_folder_of_a_year_with_notes_is_not_taken_for_a_model(tmp_path: Path) -> None:
    _make(tmp_path, "a/1.jpg", "b/2024/metadata.json", "b/2024/1.jpg")
    with pytest.raises(DatasetError, match="lie deeper, in b/2024"):
        read_folder(tmp_path)
