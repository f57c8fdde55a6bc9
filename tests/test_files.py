import os
import socket
from collections.abc import Callable
from functools import partial
from pathlib import Path
from unittest.mock import Mock

import pytest

from service.files import (
    UnfitFile,
    bring_to_disk,
    digest_bytes,
    digest_file,
    list_visible,
    open_regular,
    read_bounded,
    read_regular,
    stamp_file,
    write_whole,
    written_whole,
)


def make_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))


def make_link_to_zeros(path: Path) -> None:
    path.symlink_to("/dev/zero")


@pytest.mark.parametrize("make", [os.mkfifo, Path.mkdir, make_socket, make_link_to_zeros])
@pytest.mark.parametrize(
    "read", [partial(read_regular, max_bytes=10), partial(read_bounded, max_bytes=10), digest_file, open_regular]
)
def test_only_regular_files_are_opened(
    tmp_path: Path, make: Callable[[Path], None], read: Callable[[Path], object]
) -> None:
    """A pipe without a writer would take the thread for good, and a device for zeros all memory."""
    make(tmp_path / "x")
    with pytest.raises(UnfitFile, match="no regular file"):
        read(tmp_path / "x")


def test_a_longer_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"12345")
    assert read_regular(tmp_path / "x", 5) == b"12345"
    with pytest.raises(UnfitFile, match="more than 4 bytes"):
        read_regular(tmp_path / "x", 4)


def test_a_sparse_file_of_terabytes_is_refused_unread(tmp_path: Path) -> None:
    (tmp_path / "x").touch()
    os.truncate(tmp_path / "x", 2**42)
    with pytest.raises(UnfitFile, match="more than"):
        read_regular(tmp_path / "x", 2**40)  # more than there is memory for


def test_files_of_a_folder_are_listed_without_hidden_ones(tmp_path: Path) -> None:
    for name in ("b.txt", "a/c.jpg", ".hidden", "a/.hidden"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert list_visible(tmp_path) == [tmp_path / "a" / "c.jpg", tmp_path / "b.txt"]


def test_of_a_longer_file_one_byte_more_is_read(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"12345")
    assert read_bounded(tmp_path / "x", 3) == b"1234"
    assert read_bounded(tmp_path / "x", 5) == b"12345"


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_whole(tmp_path / "x", b"old")
    monkeypatch.setattr(os, "fsync", Mock(side_effect=OSError(28, "No space left on device")))
    with pytest.raises(OSError, match="No space left"):
        write_whole(tmp_path / "x", b"new")
    assert (tmp_path / "x").read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [tmp_path / "x"]


def test_a_link_is_a_file_where_it_may_be(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"12345")
    (tmp_path / "link").symlink_to("x")
    assert read_regular(tmp_path / "link", 5) == b"12345"
    with pytest.raises(UnfitFile):
        read_regular(tmp_path / "link", 5, follow_links=False)


def test_a_missing_file_is_no_unfit_one(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_regular(tmp_path / "x", 5)


def test_the_digest_is_that_of_the_bytes(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"12345")
    assert digest_file(tmp_path / "x") == digest_bytes(b"12345")


def test_a_file_put_back_has_another_stamp(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"12345")
    before = stamp_file(tmp_path / "x")
    (tmp_path / "x").rename(tmp_path / "y")
    (tmp_path / "y").rename(tmp_path / "x")
    assert stamp_file(tmp_path / "x") != before


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="asks Linux")
def test_a_refused_file_does_not_stay_open(tmp_path: Path) -> None:
    """A service that looks at its store for months would run out of descriptors."""
    os.mkfifo(tmp_path / "x")
    before = sorted(Path("/proc/self/fd").iterdir())
    with pytest.raises(UnfitFile):
        read_regular(tmp_path / "x", 5)
    assert sorted(Path("/proc/self/fd").iterdir()) == before


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="asks Linux")
def test_files_and_folders_are_brought_to_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[Path] = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append(Path(f"/proc/self/fd/{descriptor}").readlink()))
    (tmp_path / "x").touch()
    for path in (tmp_path / "x", tmp_path):
        bring_to_disk(path)
    assert synced == [tmp_path / "x", tmp_path]
    with pytest.raises(FileNotFoundError):
        bring_to_disk(tmp_path / "y")


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("old")
    broken = Mock(fileno=Mock(side_effect=KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt), written_whole(tmp_path / "x") as file:
        file.write(broken.fileno())
    assert [path.read_text() for path in tmp_path.iterdir()] == ["old"]
    with written_whole(tmp_path / "x") as file:
        file.write(b"new")
    assert [path.read_text() for path in tmp_path.iterdir()] == ["new"]
