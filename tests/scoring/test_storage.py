"""Local files, and URLs of fsspec's own file systems."""

from pathlib import Path

import pytest

from service.errors import ImageBytesTooLarge, InvalidImage, ScoringError, UsageError
from service.imaging.decode import decode_image
from service.imaging.limits import ImageLimits
from service.scoring.storage import expand, join, list_names, make_absolute, opened, read_image, write_file


def test_a_local_file_is_written_whole_with_its_folder(tmp_path: Path) -> None:
    place = join(str(tmp_path / "new" / "scores"), "a.bin")
    write_file(place, b"first")
    write_file(place, b"second")
    with opened(place) as file:
        assert file.read() == b"second"
    assert list_names(str(tmp_path / "new" / "scores")) == {"a.bin"}


def test_a_missing_folder_has_no_names(tmp_path: Path) -> None:
    assert list_names(str(tmp_path / "nowhere")) == set()


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ScoringError, match=r"file/a\.bin cannot be written"):
        write_file(str(tmp_path / "file" / "a.bin"), b"")
    with pytest.raises(ScoringError, match="file cannot be listed"):
        list_names(str(tmp_path / "file"))


def test_a_photograph_that_is_not_there_is_at_fault(tmp_path: Path) -> None:
    with pytest.raises(InvalidImage, match="No such file"):
        read_image(str(tmp_path / "missing.jpg"), ImageLimits())


def test_only_local_paths_are_made_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert make_absolute("photos/../a.jpg") == str(tmp_path / "a.jpg")
    assert make_absolute("s3://bucket//photos/a.jpg") == "s3://bucket//photos/a.jpg"


@pytest.mark.ray
def test_urls_are_read_and_written_like_paths(tmp_path: Path) -> None:
    folder = f"file://{tmp_path}/photos"
    for name in ("b.jpg", "a.jpg", ".hidden.jpg"):
        write_file(join(folder, name), name.encode())
    assert expand(folder) == [f"{folder}/a.jpg", f"{folder}/b.jpg"]
    assert expand(f"{folder}/b*") == [f"{folder}/b.jpg"]
    assert expand(f"{folder}/a.jpg") == [f"{folder}/a.jpg"]
    assert expand(f"{folder}/nothing*") is None
    assert read_image(f"{folder}/b.jpg", ImageLimits()) == (tmp_path / "photos" / "b.jpg").read_bytes()
    assert list_names(folder) == {"a.jpg", "b.jpg", ".hidden.jpg"}
    assert list_names(f"{folder}/missing") == set()
    with opened(f"{folder}/a.jpg") as file:
        assert file.read() == b"a.jpg"


@pytest.mark.ray
def test_a_long_object_is_not_read_whole() -> None:
    write_file("memory://bucket/long.jpg", bytes(100_000))
    limits = ImageLimits(max_image_bytes=2000)
    data = read_image("memory://bucket/long.jpg", limits)
    assert len(data) == 2001
    with pytest.raises(ImageBytesTooLarge):
        decode_image(data, limits)


@pytest.mark.ray
def test_only_a_missing_object_is_the_images_fault(tmp_path: Path) -> None:
    with pytest.raises(InvalidImage, match="cannot be read"):
        read_image("memory://bucket/missing.jpg", ImageLimits())
    (tmp_path / "broken.zip").write_bytes(b"no archive")
    with pytest.raises(ScoringError, match="cannot be read"):
        read_image(f"zip://a.jpg::file://{tmp_path}/broken.zip", ImageLimits())


@pytest.mark.ray
def test_an_unknown_scheme_is_named() -> None:
    with pytest.raises(UsageError, match="nosuch"):
        expand("nosuch://bucket/photos")
