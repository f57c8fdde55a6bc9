"""Processes of a test, on Linux."""

import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path


def children(of: int | None = None) -> set[int]:
    """Numbers of the processes that a process has started and that have not ended. None means this one.

    The resource tracker of `multiprocessing` stays to the end, and does not count.
    """
    found = set()
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            state, parent = path.read_text().rpartition(")")[2].split()[:2]
            is_tracker = b"multiprocessing.resource_tracker" in path.with_name("cmdline").read_bytes()
            if int(parent) == (of or os.getpid()) and state != "Z" and not is_tracker:
                found.add(int(path.parent.name))
    return found


def is_gone(pid: int) -> bool:
    """Whether a process has ended, or only waits for whoever has taken it over to notice."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def wait_until(condition: Callable[[], bool]) -> None:
    """Wait for another process or thread, which nothing tells."""
    ends_at = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < ends_at
        time.sleep(0.01)
