"""Processes of a test, on Linux."""

import os
import re
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

_HELPER = re.compile(r"from multiprocessing\.(forkserver|resource_tracker) import main")


def children() -> set[int]:
    """Numbers of the processes that this one has started and that have not ended.

    The helpers of `multiprocessing` stay to the end, and do not count.
    """
    found = set()
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            state, parent = path.read_text().rpartition(")")[2].split()[:2]
            is_helper = _HELPER.search(path.with_name("cmdline").read_text()) is not None
            if int(parent) == os.getpid() and state != "Z" and not is_helper:
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
