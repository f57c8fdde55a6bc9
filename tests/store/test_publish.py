import errno
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

import pytest
from support.interrupting import interrupt_rename
from support.versions import example_metadata, publish_example, write_example

from service.errors import InvalidParameter, ModelNotFound, PublishError
from service.store.layout import METADATA_FILE, SHA256SUMS_FILE
from service.store.publish import check_can_publish, publish_version
from service.store.verify import verify_version
from service.store.versions import list_models, list_versions

PUBLISHER = Path(__file__).parents[1] / "support" / "slow_publisher.py"


def names(store: Path) -> list[str]:
    return sorted(path.name for path in (store / "flowers").iterdir())


def test_versions_count_up_from_1_and_verify(tmp_path: Path) -> None:
    store = tmp_path / "new" / "store"
    assert [publish_example(store) for _ in range(3)] == [1, 2, 3]
    assert names(store) == ["1", "2", "3"]
    for version in list_versions(store, "flowers"):
        assert verify_version(store / "flowers" / str(version)).metadata == example_metadata()


def test_a_draft_is_invisible_until_its_block_ends(tmp_path: Path) -> None:
    with publish_version(tmp_path, "flowers") as draft:
        write_example(draft.folder)
        assert list_models(tmp_path) == []
        assert draft.folder.parent == tmp_path / "flowers"
        with pytest.raises(AttributeError):
            _ = draft.version
    assert draft.version == 1
    assert list_models(tmp_path) == ["flowers"]


def test_a_draft_becomes_a_candidate_until_its_block_ends(tmp_path: Path) -> None:
    with publish_version(tmp_path, "flowers") as draft:
        write_example(draft.folder)
        assert not draft.is_candidate
        draft.is_candidate = True
    assert draft.folder == tmp_path / "flowers" / "candidates" / "1"
    assert verify_version(draft.folder).metadata == example_metadata()
    assert names(tmp_path) == ["candidates"]


def test_versions_and_candidates_share_one_counter(tmp_path: Path) -> None:
    kinds = (True, False, True, True, False)
    assert [publish_example(tmp_path, is_candidate=kind) for kind in kinds] == [1, 2, 3, 4, 5]
    assert list_versions(tmp_path, "flowers") == [2, 5]


@pytest.mark.parametrize("is_candidate", [True, False])
def test_a_candidate_and_a_version_at_once_differ(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_candidate: bool
) -> None:
    others: list[int] = []

    def publish_others() -> None:
        others.extend(publish_example(tmp_path, is_candidate=kind) for kind in (not is_candidate, is_candidate))

    interrupt_rename(monkeypatch, publish_others)
    assert publish_example(tmp_path, is_candidate=is_candidate) == 3
    assert others == [1, 2]


@pytest.mark.parametrize("is_candidate", [False, True])
def test_what_appears_at_a_taken_number_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_candidate: bool
) -> None:
    real_rename, home = Path.rename, tmp_path / "flowers" / ("candidates" if is_candidate else "")

    def rename(path: Path, target: Path) -> Path:
        if target == home / "1":
            (target / "mine").mkdir(parents=True)  # a copy by hand, after the number was found free
        return real_rename(path, target)

    monkeypatch.setattr(Path, "rename", rename)
    assert publish_example(tmp_path, is_candidate=is_candidate) == 2
    assert [path.name for path in (home / "1").iterdir()] == ["mine"]


def test_a_failed_candidate_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real_rename = Path.rename

    def rename(path: Path, target: Path) -> Path:
        if target.parent.name == "candidates":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real_rename(path, target)

    monkeypatch.setattr(Path, "rename", rename)
    with pytest.raises(PublishError, match="No space left on device"):
        publish_example(tmp_path, is_candidate=True)
    assert list(tmp_path.iterdir()) == []


def test_the_folder_of_candidates_may_go_meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real_rename, folder = Path.rename, tmp_path / "flowers" / "candidates"

    def rename(path: Path, target: Path) -> Path:
        if Path(target).parent == folder:
            folder.rmdir()
            monkeypatch.setattr(Path, "rename", real_rename)
        return real_rename(path, target)

    monkeypatch.setattr(Path, "rename", rename)
    assert publish_example(tmp_path, is_candidate=True) == 1
    assert verify_version(folder / "1").metadata == example_metadata()


@pytest.mark.parametrize("error", [ValueError("mine"), KeyboardInterrupt()])
def test_nothing_is_left_after_an_exception(tmp_path: Path, error: BaseException) -> None:
    def publish() -> None:
        with publish_version(tmp_path, "flowers") as draft:
            draft.is_candidate = True
            write_example(draft.folder)
            raise error

    with pytest.raises(type(error)):
        publish()
    assert list(tmp_path.iterdir()) == []


def test_an_impossible_name_is_a_wrong_request(tmp_path: Path) -> None:
    for publish in (check_can_publish, lambda store, model: publish_version(store, model).__enter__()):
        with pytest.raises(InvalidParameter):
            publish(tmp_path, "../flowers")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("file", "complaint"),
    [("saved_model.pb", "saved_model.pb is missing"), (METADATA_FILE, "metadata.json is missing")],
)
def test_what_would_not_verify_is_not_published(tmp_path: Path, file: str, complaint: str) -> None:
    def publish() -> None:
        with publish_version(tmp_path, "flowers") as draft:
            write_example(draft.folder)
            (draft.folder / file).unlink()

    with pytest.raises(PublishError, match=complaint):
        publish()
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_leaves_nothing_behind(tmp_path: Path) -> None:
    publish_example(tmp_path)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))  # the kernel refuses to write more, as a full disk does
    try:
        with pytest.raises(PublishError, match="could not be written") as raised:  # noqa: SIM117
            with publish_version(tmp_path, "flowers") as draft:
                (draft.folder / "saved_model.pb").write_bytes(bytes(20_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "(File too large). Nothing was published. Make room" in str(raised.value)
    assert names(tmp_path) == ["1"]


def test_a_full_disk_at_the_last_moment_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> NoReturn:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(PublishError, match="No space left on device"):
        publish_example(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_an_unwritable_store_is_refused_before_training(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(PublishError, match=r"cannot be written \(Not a directory\)\. Allow writing there"):
        check_can_publish(tmp_path / "file", "flowers")
    with pytest.raises(PublishError, match="could not be written"):
        publish_example(tmp_path / "file")
    check_can_publish(tmp_path / "store", "flowers")
    assert list((tmp_path / "store").iterdir()) == []


def test_files_reach_the_disk_before_the_version_appears(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[Path] = []
    before_rename: list[set[Path]] = []
    real_fsync, real_rename = os.fsync, Path.rename

    def fsync(descriptor: int) -> None:
        real_fsync(descriptor)
        synced.append(Path(f"/proc/self/fd/{descriptor}").readlink())

    def rename(path: Path, target: Path) -> Path:
        before_rename.append({file.relative_to(path) for file in synced if file.is_relative_to(path)})
        return real_rename(path, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(Path, "rename", rename)
    version = tmp_path / "flowers" / str(publish_example(tmp_path))
    everything = {path.relative_to(version) for path in (version, *version.rglob("*"))}
    assert Path(SHA256SUMS_FILE) in everything
    assert before_rename[0] == everything
    assert version.parent in synced, "nor is the rename lost"
    assert tmp_path in synced, "nor is the folder of a new model"


@contextmanager
def paused_publisher(store: Path) -> Iterator[Callable[[], str]]:
    """A real process that stops before each operation on the store, and is killed at the end of the block.

    The function that it gives returns the next operation announced, and lets the one before it happen.
    """
    with subprocess.Popen(
        [sys.executable, str(PUBLISHER), str(store)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        commands, announcements = process.stdin, process.stdout
        assert commands is not None
        assert announcements is not None
        first = announcements.readline().strip()

        def go_on() -> str:
            nonlocal first
            announced, first = first, ""
            if not announced:
                commands.write("\n")
                commands.flush()
                announced = announcements.readline().strip()
            return announced

        try:
            yield go_on
        finally:
            process.kill()


def until(announced: str, go_on: Callable[[], str]) -> str:
    while not (operation := go_on()).startswith(announced):
        assert operation, "the publisher died"
    return operation


def test_at_no_moment_is_a_half_version_visible(tmp_path: Path) -> None:
    publish_example(tmp_path)
    seen = []
    with paused_publisher(tmp_path) as go_on:
        while go_on() != "published 2":
            seen.append(list_versions(tmp_path, "flowers"))
            for version in seen[-1]:
                verify_version(tmp_path / "flowers" / str(version))
    assert len(seen) > 15
    assert seen == sorted(seen), "and once it is visible it stays"
    assert (seen[0], seen[-1]) == ([1], [1, 2])


@pytest.mark.parametrize(
    ("moment", "num_steps", "versions", "following"),
    [
        ("os.mkdir", 3, [], 1),
        ("open", 3, [], 1),
        ("open", 9, [], 1),
        ("os.rename", 0, [], 1),
        ("os.rename", 1, [], 2),  # it had the number 1 already
        ("os.rename", 4, [1], 2),
    ],
)
def test_a_killed_publisher_leaves_no_half_version(
    tmp_path: Path, moment: str, num_steps: int, versions: list[int], following: int
) -> None:
    with paused_publisher(tmp_path) as go_on:
        until(moment, go_on)
        for _ in range(num_steps):
            assert go_on()
    assert names(tmp_path) != [], "it had begun"
    assert [name for name in names(tmp_path) if not name.startswith(".publishing-")] == [str(v) for v in versions]
    assert publish_example(tmp_path) == following, "and stands in nobody's way"
    for version in list_versions(tmp_path, "flowers"):
        verify_version(tmp_path / "flowers" / str(version))


def test_two_publishers_at_once_get_two_versions(tmp_path: Path) -> None:
    with paused_publisher(tmp_path) as first, paused_publisher(tmp_path) as second:
        until("os.rename", first)  # both stand just before their renames, with the same number in mind
        until("os.rename", second)
        assert until("published", first) == "published 1"
        assert until("published", second) == "published 2"
    assert names(tmp_path) == ["1", "2"]


def test_leftovers_of_dead_publishers_are_cleared_after_a_day(tmp_path: Path) -> None:
    publish_example(tmp_path)
    hours_old = {".publishing-old": 25, ".removing-old": 25, ".publishing-new": 23, ".mine": 100}
    for name, hours in hours_old.items():
        (tmp_path / "flowers" / name).mkdir()
        (tmp_path / "flowers" / name / "saved_model.pb").write_bytes(b"half a net")
        changed = time.time() - hours * 3600
        os.utime(tmp_path / "flowers" / name, (changed, changed))
    publish_example(tmp_path)
    assert names(tmp_path) == [".mine", ".publishing-new", "1", "2"]


def test_other_users_may_read_a_version(tmp_path: Path) -> None:
    old = os.umask(0o022)
    try:
        version = tmp_path / "flowers" / str(publish_example(tmp_path))
    finally:
        os.umask(old)
    assert version.stat().st_mode & 0o777 == 0o755


def test_the_model_folder_may_not_leave_the_store(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "flowers").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ModelNotFound):
        publish_example(tmp_path / "store")
    assert list((tmp_path / "elsewhere").iterdir()) == []
