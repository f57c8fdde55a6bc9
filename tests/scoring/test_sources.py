"""The photographs of folders, patterns and lists."""

import os
from pathlib import Path

import pytest

from service.errors import UsageError
from service.scoring.sources import digest_paths, list_photographs


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with photographs that nobody decodes."""
    monkeypatch.chdir(tmp_path)
    for name in ("b/1.jpg", "b/2.PNG", "a.jpeg", ".hidden.jpg", "notes.txt", "b/scores.csv"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    return tmp_path


def listed(*sources: str) -> list[str]:
    return [os.path.relpath(path) for path in list_photographs(sources)]


def test_a_folder_gives_its_images_in_order(folder: Path) -> None:
    assert listed(".") == ["a.jpeg", "b/1.jpg", "b/2.PNG"]
    assert list_photographs([str(folder)]) == [str(folder / name) for name in ("a.jpeg", "b/1.jpg", "b/2.PNG")]


def test_a_pattern_gives_the_images_that_match(folder: Path) -> None:
    assert listed("b/*") == ["b/1.jpg", "b/2.PNG"]
    assert listed("**/*.jp*g") == ["a.jpeg", "b/1.jpg"]
    (folder / "b" / "scores.csv").write_text("path\nc.jpg\n")
    assert listed("b/*.csv") == ["c.jpg"]


def test_a_photograph_in_two_sources_is_listed_once(folder: Path) -> None:
    assert listed("b", ".", "b/1.jpg") == ["b/1.jpg", "b/2.PNG", "a.jpeg"]


def test_a_named_file_need_not_look_like_an_image(folder: Path) -> None:
    assert listed("notes.txt", "missing.jpg") == ["notes.txt", "missing.jpg"]


@pytest.mark.parametrize("column", ["path", "file"])
def test_a_csv_lists_paths_and_urls(folder: Path, column: str) -> None:
    (folder / "list.csv").write_text(
        f'\ufeffid,{column}\n1,b/1.jpg\n2,"a, b.jpg"\n3,\n4,s3://bucket//c.jpg\n5,b/1.jpg\n'
    )
    assert list_photographs(["list.csv"]) == [
        str(folder / "b" / "1.jpg"), str(folder / "a, b.jpg"), "s3://bucket//c.jpg",
    ]  # fmt: skip


def test_names_that_are_no_utf8_are_listed(folder: Path) -> None:
    name = os.fsdecode(b"not-utf8-\xff.jpg")
    (folder / "b" / name).write_bytes(b"")
    assert f"b/{name}" in listed("b")
    (folder / "list.csv").write_bytes(b"path\nb/not-utf8-\xff.jpg\n")
    assert listed("list.csv") == [f"b/{name}"]
    assert digest_paths([name]) != digest_paths(["not-utf8-\ufffd.jpg"])


def test_the_digest_tells_order_and_borders() -> None:
    digests = {digest_paths(paths) for paths in (["a", "b"], ["b", "a"], ["ab"], ["a"])}
    assert len(digests) == 4


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("nowhere", "nowhere is not there"),
        ("nothing/*.jpg", r"\*\.jpg is not there"),
        ("notes", "no image to score"),
        ("list.csv", "has no column `path`. Its columns are: id, url."),
        ("empty.csv", "Its columns are: none"),
    ],
)
def test_a_source_without_photographs_is_refused(folder: Path, source: str, said: str) -> None:
    (folder / "notes").mkdir()
    (folder / "list.csv").write_text("id,url\n1,a.jpg\n")
    (folder / "empty.csv").write_text("")
    with pytest.raises(UsageError, match=said):
        list_photographs([source])


@pytest.mark.ray
def test_a_parquet_file_lists_paths(folder: Path) -> None:
    import pyarrow as pa
    from pyarrow.parquet import write_table

    table = pa.table({"id": [1, 2, 3], "path": ["b/1.jpg", None, "s3://bucket/c.jpg"]})
    write_table(table, folder / "list.parquet", row_group_size=1)
    expected = [str(folder / "b" / "1.jpg"), "s3://bucket/c.jpg"]
    assert list_photographs(["list.parquet"]) == expected
    assert list_photographs([f"file://{folder}/list.parquet"]) == expected
    (folder / "list.parquet").write_bytes(b"no Parquet")
    with pytest.raises(UsageError, match="cannot be read as a list"):
        list_photographs(["list.parquet"])
