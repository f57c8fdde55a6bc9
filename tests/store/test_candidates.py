"""Taking of candidates: verified, refused, and beside other takers and publishers."""

import errno
import os
import shutil
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest
from support.interrupting import interrupt_rename
from support.versions import example_metadata, publish_example

from service.errors import InvalidVersion, PublishError, StoreError, UsageError, VersionNotFound
from service.store.candidates import take_candidate
from service.store.verify import verify_version
from service.store.versions import list_candidates, list_versions


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    store = tmp_path_factory.mktemp("published") / "store"
    for is_candidate in (False, True, True):
        publish_example(store, is_candidate=is_candidate)
    return store


@pytest.fixture
def store(published: Path, tmp_path: Path) -> Path:
    """Version 1 of `flowers` and the candidates 2 and 3."""
    return shutil.copytree(published, tmp_path / "store")


def names(store: Path) -> list[str]:
    return sorted(path.relative_to(store / "flowers").as_posix() for path in (store / "flowers").glob("*/*.pb"))


def test_a_taken_candidate_is_the_version_of_its_number(store: Path) -> None:
    take_candidate(store, "flowers", 3)
    assert names(store) == ["1/saved_model.pb", "3/saved_model.pb"]
    assert list_versions(store, "flowers") == [1, 3]
    assert [candidate.version for candidate in list_candidates(store, "flowers")] == [2]
    assert verify_version(store / "flowers" / "3").metadata == example_metadata()


def test_the_last_candidate_leaves_no_folder_behind(store: Path) -> None:
    take_candidate(store, "flowers", 2)
    assert (store / "flowers" / "candidates").is_dir()
    take_candidate(store, "flowers", 3)
    assert sorted(path.name for path in (store / "flowers").iterdir()) == ["1", "2", "3"]


@pytest.mark.parametrize("file", ["saved_model.pb", "variables/variables.index", "more"])
def test_a_damaged_candidate_is_not_taken(store: Path, file: str) -> None:
    path = store / "flowers" / "candidates" / "2" / file
    path.write_bytes(path.read_bytes()[:-1] + b"!" if path.exists() else b"")
    with pytest.raises(InvalidVersion, match=f"Version 2 is not what was published. {file}"):
        take_candidate(store, "flowers", 2)
    assert list_versions(store, "flowers") == [1]
    assert path.exists()


@pytest.mark.parametrize("has_candidate", [False, True])
def test_a_number_that_a_version_has_is_refused(store: Path, has_candidate: bool) -> None:
    if has_candidate:
        shutil.copytree(store / "flowers" / "1", store / "flowers" / "candidates" / "1")
    with pytest.raises(UsageError, match=r"has a version 1 already\. Serve it with `flowers models use 1`"):
        take_candidate(store, "flowers", 1)


def test_a_file_of_that_number_is_not_overwritten(store: Path) -> None:
    (store / "flowers" / "2").write_text("mine")
    with pytest.raises(UsageError, match="a version 2 already"):
        take_candidate(store, "flowers", 2)
    assert (store / "flowers" / "2").read_text() == "mine"


def test_a_missing_candidate_is_named_with_what_is_there(store: Path) -> None:
    with pytest.raises(VersionNotFound, match=r"no version 9\. It has 1, candidate 2, candidate 3\. Name one"):
        take_candidate(store, "flowers", 9)


def test_one_of_two_takers_takes(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    interrupt_rename(monkeypatch, lambda: take_candidate(store, "flowers", 2))
    with pytest.raises(VersionNotFound, match="Candidate 2 of flowers was taken or removed meanwhile"):
        take_candidate(store, "flowers", 2)
    assert list_versions(store, "flowers") == [1, 2]
    verify_version(store / "flowers" / "2")


def test_a_version_that_appears_at_last_stays(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def copy_by_hand() -> None:
        shutil.copytree(store / "flowers" / "1", store / "flowers" / "2")
        (store / "flowers" / "2" / "mine").touch()

    interrupt_rename(monkeypatch, copy_by_hand)
    with pytest.raises(UsageError, match="a version 2 already"):
        take_candidate(store, "flowers", 2)
    assert (store / "flowers" / "2" / "mine").exists()
    assert [candidate.version for candidate in list_candidates(store, "flowers")] == [2, 3]


@pytest.mark.parametrize("is_candidate", [False, True])
def test_a_publisher_beside_a_taker_gets_another_number(
    store: Path, monkeypatch: pytest.MonkeyPatch, is_candidate: bool
) -> None:
    published: list[int] = []
    interrupt_rename(monkeypatch, lambda: published.append(publish_example(store, is_candidate=is_candidate)))
    take_candidate(store, "flowers", 3)
    assert published == [4]
    assert 3 in list_versions(store, "flowers")


def test_many_takers_and_publishers_share_numbers_once(tmp_path: Path) -> None:
    given: list[int] = []
    start = threading.Barrier(6)

    def publish(is_candidate: bool) -> None:
        start.wait()
        given.extend(publish_example(tmp_path, is_candidate=is_candidate) for _ in range(4))

    def take() -> None:
        start.wait()
        for _ in range(100):
            for candidate in list_candidates(tmp_path, "flowers"):
                with suppress(UsageError, InvalidVersion, VersionNotFound):  # the other taker was quicker
                    take_candidate(tmp_path, "flowers", candidate.version)

    tasks: list[Callable[[], None]] = [lambda: publish(False), lambda: publish(True)] * 2 + [take, take]
    with ThreadPoolExecutor(6) as pool:
        for done in [pool.submit(task) for task in tasks]:
            done.result()
    for candidate in list_candidates(tmp_path, "flowers"):
        take_candidate(tmp_path, "flowers", candidate.version)
    assert sorted(given) == list_versions(tmp_path, "flowers")
    assert len(given) == len(set(given)) == 16
    for version in given:
        verify_version(tmp_path / "flowers" / str(version))
    assert [path for path in (tmp_path / "flowers").iterdir() if not path.name.isdecimal()] == []


@pytest.mark.parametrize("link", ["candidates", "candidates/2"])
def test_a_candidate_behind_a_link_is_refused(store: Path, tmp_path: Path, link: str) -> None:
    path, elsewhere = store / "flowers" / link, tmp_path / "elsewhere"
    path.rename(elsewhere)
    path.symlink_to(elsewhere)
    with pytest.raises(InvalidVersion, match="is a link"):
        take_candidate(store, "flowers", 2)
    assert 2 not in {candidate.version for candidate in list_candidates(store, "flowers")}
    before = sorted(elsewhere.rglob("*"))
    if link == "candidates":
        with pytest.raises(PublishError, match="flowers/candidates is a link"):
            publish_example(store, is_candidate=True)
    else:
        assert publish_example(store, is_candidate=True) == 4
    assert sorted(elsewhere.rglob("*")) == before
    assert list_versions(store, "flowers") == [1]


def test_a_store_that_cannot_be_written_keeps_the_candidate(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    before = names(store)
    interrupt_rename(monkeypatch, refuse)
    with pytest.raises(StoreError, match=r"cannot be changed \(Read-only file system\)"):
        take_candidate(store, "flowers", 2)
    assert names(store) == before


def test_both_folders_reach_the_disk_after_the_rename(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[Path] = []
    real_fsync = os.fsync

    def fsync(descriptor: int) -> None:
        real_fsync(descriptor)
        assert (store / "flowers" / "2").is_dir()
        synced.append(Path(f"/proc/self/fd/{descriptor}").readlink())

    monkeypatch.setattr(os, "fsync", fsync)
    take_candidate(store, "flowers", 2)
    assert set(synced) == {store / "flowers", store / "flowers" / "candidates"}
