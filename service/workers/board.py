"""Board of a replica: numbers that its workers share, in a file that all map into memory.

A worker writes its own slot only, so there are no locks. The numbers of a dead worker stay until its successor, which
goes on counting from them.
"""

import fcntl
import mmap
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import overload

from service.errors import FlowersError

FROZEN_AFTER_S = 3.0
"""Time without a beat after which a worker gets no connection, in seconds."""

_PREFIX = "flowers-replica-"
_IN_MEMORY = Path("/dev/shm")  # noqa: S108 - a folder of our own is made there
_BOARD, _TURN = "board", "turn"
_NUM_CELLS = 24  # of a slot
_CELL_BYTES = 8
_MIN_FREE_BYTES = 8 * 1024 * 1024  # some 100 KB a worker are written


class _Cell:
    """One signed 64-bit number of a slot. Reading and writing it takes one step."""

    def __init__(self, index: int) -> None:
        self._index = index

    @overload
    def __get__(self, slot: None, owner: type["Slot"]) -> "_Cell": ...
    @overload
    def __get__(self, slot: "Slot", owner: type["Slot"]) -> int: ...
    def __get__(self, slot: "Slot | None", owner: type["Slot"]) -> "int | _Cell":
        return self if slot is None else slot.cells[self._index]

    def __set__(self, slot: "Slot", value: int) -> None:
        slot.cells[self._index] = value


class Slot:
    """Numbers of one process. The first slot is the supervisor's."""

    pid = _Cell(0)
    beat_ns = _Cell(1)  # when its event loop last ran, on the machine's monotonic clock
    is_ready = _Cell(2)  # a model can answer
    num_images = _Cell(3)  # of accepted requests that have arrived and have no answer
    num_computing = _Cell(4)  # of these, in the lane
    num_bytes = _Cell(5)  # of accepted bodies
    num_pixels = _Cell(6)  # being decoded ahead
    max_waiting = _Cell(7)  # images that may wait now
    num_received = _Cell(8)  # connections from the supervisor so far, by this process
    num_open = _Cell(9)  # of these, open
    num_dropped = _Cell(10)  # log lines, by all processes of the slot
    cpu_us = _Cell(11)  # processor time, by all processes of the slot
    unready_since_ns = _Cell(12)  # when it stopped to be ready. 0 before it was, and while it is
    is_started = _Cell(13)  # supervisor's: a model was loaded once
    num_explanations = _Cell(14)  # that have arrived and have no answer
    num_explaining = _Cell(15)  # of these, at work
    emptied_ns = _Cell(16)  # when the last image left, on the machine's monotonic clock. 0 means never

    def __init__(self, cells: memoryview) -> None:
        self.cells = cells

    def beat(self) -> None:
        """Say that the event loop runs."""
        self.beat_ns = time.monotonic_ns()

    def report_ready(self, is_ready: bool) -> None:
        """Say whether a model can answer, and since when no more."""
        if is_ready:
            self.unready_since_ns = 0
        elif self.is_ready:
            self.unready_since_ns = time.monotonic_ns()
        self.is_ready = int(is_ready)

    def silent_s(self) -> float:
        """Return the time since the last beat, in seconds."""
        return (time.monotonic_ns() - self.beat_ns) / 1e9

    def can_answer(self) -> bool:
        """Return whether a model can answer and the event loop runs."""
        return bool(self.is_ready) and self.silent_s() < FROZEN_AFTER_S

    def clear(self) -> None:
        """Reset what a dead process no longer holds. What it has counted stays."""
        self.pid = self.is_ready = self.unready_since_ns = self.num_images = self.num_computing = 0
        self.num_bytes = self.num_pixels = self.max_waiting = self.num_received = self.num_open = 0
        self.num_explanations = self.num_explaining = 0


class Board:
    """Slots of a replica, in its folder."""

    def __init__(self, folder: Path, num_workers: int) -> None:
        self.folder = folder
        with (folder / _BOARD).open("a+b") as file:
            file.truncate((num_workers + 1) * _NUM_CELLS * _CELL_BYTES)
            cells = memoryview(mmap.mmap(file.fileno(), 0)).cast("q")
        slots = [Slot(cells[first : first + _NUM_CELLS]) for first in range(0, len(cells), _NUM_CELLS)]
        self.supervisor = slots[0]
        self.workers: Sequence[Slot] = slots[1:]

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Hold the replica's lock, first come, first served. The kernel frees it when its holder dies."""
        descriptor = os.open(self.folder / _TURN, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)


@contextmanager
def replica_folder() -> Iterator[Path]:
    """Make a folder for one replica, in memory where that is possible, and remove it in the end.

    Folders of replicas that were killed are removed first. Raises `FlowersError` where no folder can be made.
    """
    parent = _IN_MEMORY if _has_space_in_memory() else Path(tempfile.gettempdir())
    _remove_leftovers(parent)
    try:
        folder, lock = _make_locked_folder(parent)
    except OSError as error:
        raise FlowersError(
            f"Workers need a writable folder, and {parent} is none ({error.strerror}). Mount one, set TMPDIR, or take "
            "--workers 1."
        ) from error
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def _has_space_in_memory() -> bool:
    """Return whether files fit into memory. Writing to a mapped file that does not ends a process by SIGBUS."""
    return os.access(_IN_MEMORY, os.W_OK) and shutil.disk_usage(_IN_MEMORY).free >= _MIN_FREE_BYTES


def _make_locked_folder(parent: Path) -> tuple[Path, int]:
    """Make a folder, and lock it. Another start may take it for a leftover before it is locked."""
    while True:
        folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=parent))
        with suppress(FileNotFoundError):
            lock = _open_folder(folder)
            fcntl.flock(lock, fcntl.LOCK_EX)
            if folder.exists():
                return folder, lock
            os.close(lock)


def _open_folder(folder: Path) -> int:
    return os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW)


def _remove_leftovers(parent: Path) -> None:
    for folder in parent.glob(f"{_PREFIX}*"):
        with suppress(OSError):  # of another user, or in use
            lock = _open_folder(folder)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(lock)
