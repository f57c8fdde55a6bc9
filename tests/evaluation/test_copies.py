"""Copies of photographs: where they may lie, and what they are called."""

from pathlib import Path

import pytest

from service.errors import SettingsError
from service.evaluation.copies import check_copies_folder, copy_file, name_folders, sort_photographs


def test_only_a_new_or_empty_folder_takes_copies(tmp_path: Path) -> None:
    measured = tmp_path / "photos"
    (measured / "x").mkdir(parents=True)
    (tmp_path / "empty").mkdir()
    (link := tmp_path / "link").symlink_to(tmp_path / "nothing")
    (tmp_path / "full").mkdir()
    for file in ("full/1.jpg", "file"):
        (tmp_path / file).touch()
    for folder in (tmp_path / "new", tmp_path / "empty"):
        check_copies_folder(folder, measured, "--copy-mistakes")
    for folder in (tmp_path / "full", tmp_path / "file", tmp_path / "a" / "b", tmp_path / "file" / "b", link):
        with pytest.raises(SettingsError, match="Name a new or an empty folder"):
            check_copies_folder(folder, measured, "--copy-mistakes")
    for folder in (measured, measured / "wrong", tmp_path / "empty" / ".." / "photos" / "x"):
        with pytest.raises(SettingsError, match="Name a folder outside"):
            check_copies_folder(folder, measured, "--copy-mistakes")
    assert not (tmp_path / "new").exists(), "nothing is made before the measurement"


def test_photographs_lie_by_label_and_originals_stay(tmp_path: Path) -> None:
    for name in ("a/1.jpg", "b/1.jpg", "b/2.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    paths = [tmp_path / name for name in ("a/1.jpg", "b/1.jpg", "b/2.jpg")]
    sort_photographs(
        tmp_path / "sorted", [(path, label) for path, label in zip(paths, ("x", "x", "../y"), strict=True)]
    )
    copies = {path.relative_to(tmp_path / "sorted").as_posix(): path for path in (tmp_path / "sorted").rglob("*.jpg")}
    assert {name: path.read_text() for name, path in copies.items()} == {
        "x/1.jpg": "a/1.jpg", "x/1-2.jpg": "b/1.jpg", "_.._y/2.jpg": "b/2.jpg",
    }  # fmt: skip
    assert all(path.exists() for path in paths)


def test_a_file_that_is_gone_is_named_while_sorting(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"cannot be sorted .*gone\.jpg"):
        sort_photographs(tmp_path / "sorted", [(tmp_path / "gone.jpg", "x")])


def test_names_differ_where_letter_case_does_not_count(tmp_path: Path) -> None:
    assert name_folders(["Rose", "rose", "."]) == {"Rose": "Rose", "rose": "rose-2", ".": "_"}
    (tmp_path / "a.jpg").write_text("new")
    (tmp_path / "copies").mkdir()
    (tmp_path / "copies" / "a.jpg").write_text("old")
    copy_file(tmp_path / "a.jpg", tmp_path / "copies")
    assert sorted(path.read_text() for path in (tmp_path / "copies").iterdir()) == ["new", "old"]
