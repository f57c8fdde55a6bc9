"""Server processes with all their descendants, on Linux.

Descendants are known by an inherited mark in their environment. Some frameworks start daemons that outlive their
parents.
"""

import os
import signal
import subprocess
import time
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

_MARK = "SERVING_BENCHMARK_MARK"
_POLITE_S, _LAST_S = 1.0, 10.0


@dataclass(frozen=True)
class Memory:
    """Memory of all processes, in MB (10^6 bytes). `pss_mb` counts shared memory once."""

    num_processes: int
    rss_mb: float
    pss_mb: float


class MarkedProcess:
    """Process of `command` in `folder`, with `environment` added to ours. Its output goes to `log`."""

    def __init__(self, command: list[str], folder: Path, environment: dict[str, str], log: BinaryIO) -> None:
        self._mark = uuid.uuid4().hex
        self.started_at = time.perf_counter()
        self._process = subprocess.Popen(
            command,
            cwd=folder,
            env={**os.environ, **environment, _MARK: self._mark},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    @property
    def has_ended(self) -> bool:
        """Return whether the process itself has ended. Descendants may live on."""
        return self._process.poll() is not None

    def memory(self) -> Memory:
        """Return the memory of all now."""
        sizes = [_sizes_kib(pid) for pid in self._find()]
        rss, pss = (sum(column) * 1024 / 1e6 for column in zip(*sizes, strict=True)) if sizes else (0.0, 0.0)
        return Memory(len(sizes), round(rss, 1), round(pss, 1))

    def stop(self) -> None:
        """Send SIGTERM to the process, and after 1 s SIGKILL to the rest of it and its descendants."""
        self._process.terminate()
        polite_until = time.monotonic() + _POLITE_S
        while self._find() and time.monotonic() < polite_until:
            time.sleep(0.05)
            self._process.poll()
        give_up_at = time.monotonic() + _LAST_S
        while pids := self._find():
            for pid in pids:
                _kill(pid)
            self._process.poll()
            if time.monotonic() > give_up_at:
                raise RuntimeError(f"processes {pids} do not end")
            time.sleep(0.05)
        self._process.wait()

    def _find(self) -> list[int]:
        mark = f"{_MARK}={self._mark}".encode()
        return [int(folder.name) for folder in Path("/proc").glob("[0-9]*") if mark in _read(folder / "environ")]


def _sizes_kib(pid: int) -> tuple[int, int]:
    lines = _read(Path(f"/proc/{pid}/smaps_rollup")).decode().splitlines()
    sizes = {line.split()[0]: int(line.split()[1]) for line in lines[1:]}
    return sizes.get("Rss:", 0), sizes.get("Pss:", 0)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:  # it has ended meanwhile, or is another user's
        return b""


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return
