"""Board of a replica: numbers that processes share, and the folder that they are in."""

import fcntl
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from conftest import REPOSITORY
from support.processes import wait_until

from service.errors import FlowersError
from service.workers.board import FROZEN_AFTER_S, Board, Slot, replica_folder

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="several workers need Linux")

CELLS = [
    "pid", "beat_ns", "is_ready", "num_images", "num_computing", "num_bytes", "num_pixels", "max_waiting",
    "num_received", "num_open", "num_dropped", "cpu_us", "unready_since_ns", "is_started",
    "num_explanations", "num_explaining", "emptied_ns",
]  # fmt: skip
HOLDS_A_TURN = """
import sys
from pathlib import Path
from service.workers.board import Board
with Board(Path(sys.argv[1]), 1).turn():
    print(flush=True)
    sys.stdin.read()
"""
HOLDS_A_FOLDER = """
import sys
from service.workers.board import replica_folder
with replica_folder() as folder:
    print(folder, flush=True)
    sys.stdin.read()
"""


@contextmanager
def program(text: str, *arguments: str) -> Iterator["subprocess.Popen[str]"]:
    """A Python program that prints a line and then waits for the end of its input."""
    command = [sys.executable, "-c", text, *arguments]
    with subprocess.Popen(command, cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def read_line(process: "subprocess.Popen[str]") -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def kill(process: "subprocess.Popen[str]") -> None:
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL


@pytest.fixture
def slot(tmp_path: Path) -> Slot:
    return Board(tmp_path, 1).workers[0]


def test_no_two_numbers_share_a_cell(tmp_path: Path) -> None:
    numbers = Board(tmp_path, 3)
    slots = [numbers.supervisor, *numbers.workers]
    expected = {}
    for number, (slot, name) in enumerate([(slot, name) for slot in range(4) for name in CELLS], 1):
        setattr(slots[slot], name, number)
        expected[slot, name] = number
    assert {(slot, name): getattr(slots[slot], name) for slot, name in expected} == expected


def test_a_second_mapping_sees_the_numbers(tmp_path: Path) -> None:
    Board(tmp_path, 2).workers[1].num_bytes = 2**40
    second = Board(tmp_path, 2)
    assert (second.workers[1].num_bytes, second.workers[0].num_bytes) == (2**40, 0)


def test_a_new_board_holds_zeros(tmp_path: Path) -> None:
    slot = Board(tmp_path, 1).workers[0]
    assert {getattr(slot, name) for name in CELLS} == {0}


def test_clear_keeps_what_was_counted(slot: Slot) -> None:
    for name in CELLS:
        setattr(slot, name, 7)
    slot.clear()
    kept = {name for name in CELLS if getattr(slot, name)}
    assert kept == {"beat_ns", "num_dropped", "cpu_us", "is_started", "emptied_ns"}


def test_a_slot_without_a_beat_cannot_answer(slot: Slot, monkeypatch: pytest.MonkeyPatch) -> None:
    now_ns = 10**12
    monkeypatch.setattr("time.monotonic_ns", lambda: now_ns)
    slot.report_ready(True)
    assert not slot.can_answer()
    slot.beat()
    assert slot.can_answer()
    now_ns += int(FROZEN_AFTER_S * 1e9)
    assert slot.silent_s() == FROZEN_AFTER_S
    assert not slot.can_answer()


def test_an_unready_slot_cannot_answer(slot: Slot) -> None:
    slot.beat()
    assert not slot.can_answer()
    slot.report_ready(True)
    assert slot.can_answer()


def test_a_slot_says_since_when_it_is_unready(slot: Slot, monkeypatch: pytest.MonkeyPatch) -> None:
    now_ns = 5
    monkeypatch.setattr("time.monotonic_ns", lambda: now_ns)
    slot.report_ready(False)
    assert slot.unready_since_ns == 0, "it was never ready"
    slot.report_ready(True)
    now_ns = 6
    slot.report_ready(False)
    now_ns = 7
    slot.report_ready(False)
    assert slot.unready_since_ns == 6
    slot.report_ready(True)
    assert slot.unready_since_ns == 0


def is_taken(folder: Path) -> bool:
    """Whether another opener of the lock would have to wait."""
    with (folder / "turn").open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def test_a_turn_ends_with_its_block(tmp_path: Path) -> None:
    with Board(tmp_path, 1).turn():
        assert is_taken(tmp_path)
    assert not is_taken(tmp_path)


def test_a_turn_is_freed_by_its_holder_s_death(tmp_path: Path) -> None:
    with program(HOLDS_A_TURN, str(tmp_path)) as holder:
        read_line(holder)
        assert is_taken(tmp_path)
        kill(holder)
        with Board(tmp_path, 1).turn():
            assert is_taken(tmp_path)


def test_a_turn_waits_for_another_process(tmp_path: Path) -> None:
    with program(HOLDS_A_TURN, str(tmp_path)) as first:
        read_line(first)
        with program(HOLDS_A_TURN, str(tmp_path)) as second:
            wait_until(lambda: f"-> FLOCK  ADVISORY  WRITE {second.pid} " in Path("/proc/locks").read_text())
            kill(first)
            read_line(second)
            assert second.poll() is None
            assert is_taken(tmp_path)


@pytest.fixture
def parent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where folders of replicas are made in this process."""
    monkeypatch.setattr("service.workers.board._IN_MEMORY", tmp_path)
    return tmp_path


def test_a_replica_removes_its_folder_in_the_end(parent: Path) -> None:
    with replica_folder() as folder:
        Board(folder, 2)
        (folder / "counter_0.db").write_bytes(b"x")
        assert list(parent.iterdir()) == [folder]
    assert list(parent.iterdir()) == []


def test_a_failing_replica_removes_its_folder(parent: Path) -> None:
    with pytest.raises(ZeroDivisionError), replica_folder():
        raise ZeroDivisionError
    assert list(parent.iterdir()) == []


def test_only_this_user_may_read_the_folder(parent: Path) -> None:
    with replica_folder() as folder:
        assert folder.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("is_alive", [False, True])
def test_a_killed_replica_s_folder_is_removed_later(is_alive: bool) -> None:
    with program(HOLDS_A_FOLDER) as replica:
        theirs = Path(read_line(replica))
        assert theirs.is_dir()
        if not is_alive:
            kill(replica)
        with replica_folder() as ours:
            assert ours.parent == theirs.parent
            assert theirs.exists() == is_alive


def test_files_of_other_programs_are_left_alone(parent: Path) -> None:
    (parent / "other").mkdir()
    (parent / "other" / "photo").touch()
    (parent / "flowers-replica-link").symlink_to(parent / "other")
    (parent / "flowers-replica-file").touch()
    with replica_folder():
        assert (parent / "other" / "photo").exists()
        assert (parent / "flowers-replica-link").is_symlink()
        assert (parent / "flowers-replica-file").exists()


def test_without_shared_memory_the_temporary_folder_serves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.workers.board._IN_MEMORY", tmp_path / "missing")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with replica_folder() as folder:
        assert folder.parent == tmp_path


def test_no_writable_folder_is_one_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.workers.board._IN_MEMORY", tmp_path / "missing")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "gone"))
    with pytest.raises(FlowersError, match=r"gone is none \(No such file or directory\).*TMPDIR.*--workers 1"):
        replica_folder().__enter__()


def test_a_full_disk_is_one_clear_error(parent: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(**_: object) -> str:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr("tempfile.mkdtemp", fail)
    with pytest.raises(FlowersError, match="No space left on device"):
        replica_folder().__enter__()


def test_a_leftover_that_was_never_locked_is_removed(parent: Path) -> None:
    leftover = parent / "flowers-replica-halfmade"
    leftover.mkdir()
    with replica_folder() as folder:
        assert list(parent.iterdir()) == [folder]


def test_another_start_may_remove_an_unlocked_folder(parent: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make, made = tempfile.mkdtemp, list[Path]()

    def make_and_lose(**where: Any) -> str:
        made.append(Path(make(**where)))
        if len(made) == 1:
            made[0].rmdir()
        return str(made[-1])

    monkeypatch.setattr("tempfile.mkdtemp", make_and_lose)
    with replica_folder() as folder:
        assert list(parent.iterdir()) == [folder] == made[1:]


def test_a_folder_removed_before_its_lock_is_made_anew(parent: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lock, locked = fcntl.flock, list[int]()

    def lose_and_lock(descriptor: int, how: int) -> None:
        if not locked:
            next(parent.iterdir()).rmdir()
        locked.append(descriptor)
        lock(descriptor, how)

    monkeypatch.setattr("fcntl.flock", lose_and_lock)
    with replica_folder() as folder:
        assert list(parent.iterdir()) == [folder]


def test_a_full_memory_leaves_the_folder_to_the_disk(parent: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = parent / "disk"
    disk.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(disk))
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=4096))
    with replica_folder() as folder:
        assert folder.parent == disk
