"""`read_folder`: what it lists, in which order, and what it refuses."""

import os
from pathlib import Path

import pytest

from service.data.folder import read_folder
from service.errors import DatasetError


def _make(folder: Path, *files: str) -> Path:
    for file in files:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_bytes(b"x")
    return folder


def test_classes_and_photographs_come_sorted_by_code_point(tmp_path: Path) -> None:
    folder = read_folder(_make(tmp_path, "b/2.jpg", "b/10.jpg", "B/1.jpg", "ä/1.jpg", "a/z.jpg", "a/A.jpg"))
    assert folder.class_names == ("B", "a", "b", "ä")
    assert [f"{photograph.label}/{photograph.path.name}" for photograph in folder.photographs] == [
        "B/1.jpg", "a/A.jpg", "a/z.jpg", "b/10.jpg", "b/2.jpg", "ä/1.jpg",
    ]  # fmt: skip
    assert all(photograph.path.is_file() for photograph in folder.photographs)


def test_hidden_entries_and_files_at_the_top_are_ignored(tmp_path: Path) -> None:
    folder = read_folder(_make(tmp_path, "a/1.jpg", "b/1.jpg", "a/.DS_Store", ".git/x", "LICENSE.txt", "odd\nname.txt"))
    assert folder.class_names == ("a", "b")
    assert len(folder.photographs) == 2


def test_whatever_lies_in_a_class_folder_is_listed_for_the_check(tmp_path: Path) -> None:
    folder = read_folder(_make(tmp_path, "a/1.jpg", "a/notes.txt", "a/inner/2.jpg", "b/1.jpg"))
    assert [photograph.path.name for photograph in folder.photographs] == [
        "1.jpg", "inner", "notes.txt", "1.jpg",
    ]  # fmt: skip


def test_a_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"no folder .*nowhere; give a folder"):
        read_folder(tmp_path / "nowhere")
    with pytest.raises(DatasetError, match="cannot be read"):
        read_folder(tmp_path / ("x" * 300))


def test_fewer_than_two_classes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="has none"):
        read_folder(tmp_path)
    with pytest.raises(DatasetError, match="has only roses"):
        read_folder(_make(tmp_path, "roses/1.jpg"))


def test_a_class_without_a_file_is_refused_by_name(tmp_path: Path) -> None:
    _make(tmp_path, "roses/1.jpg", "tulips/.hidden", "tulips/inner/1.jpg")
    with pytest.raises(DatasetError, match="class folder tulips holds no photograph"):
        read_folder(tmp_path)


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        (b"\xff\xfe.jpg", "is not UTF-8"),
        (b"x" * 201, "longer than 200 bytes"),
        (b"line\nbreak.jpg", "control character"),
        (b"back\\slash.jpg", "backslash"),
    ],
)
@pytest.mark.parametrize("place", [b"a/%s", b"%s/1.jpg"])
def test_a_name_that_no_report_can_carry_is_refused(tmp_path: Path, name: bytes, fault: str, place: bytes) -> None:
    _make(tmp_path, "a/1.jpg", "b/1.jpg", os.fsdecode(place % name))
    with pytest.raises(DatasetError, match=fault) as raised:
        read_folder(tmp_path)
    assert str(raised.value).isprintable()
    str(raised.value).encode("utf-8")
