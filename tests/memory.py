"""What a process takes, on Linux."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest


def memory_bytes(kind: str, process: int | str = "self") -> int:
    """Resident in that process: VmRSS at this moment, VmHWM at the most."""
    with Path(f"/proc/{process}/status").open() as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith(kind))


def growth_bytes(call: Callable[[], object]) -> int:
    """How much more was resident at the most during `call` than before it; skips the test where that cannot be told."""
    try:
        Path("/proc/self/clear_refs").write_text("5")  # VmHWM begins again at VmRSS
    except OSError as error:
        pytest.skip(f"the peak of this process cannot be measured here: {error}")
    before = memory_bytes("VmHWM")
    call()
    return memory_bytes("VmHWM") - before


def cpu_seconds(process: int) -> float:
    """What that process has computed so far."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
