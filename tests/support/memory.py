"""What a process takes, on Linux."""

import gc
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path


def memory_bytes(kind: str, process: int | str = "self") -> int:
    """Resident in that process: VmRSS at this moment, VmHWM at the most."""
    with Path(f"/proc/{process}/status").open() as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith(kind))


def forget_peak() -> bool:
    """Let VmHWM of this process begin again at VmRSS; whether that is allowed."""
    with suppress(OSError):
        return bool(Path("/proc/self/clear_refs").write_text("5"))
    return False


def growth_bytes(call: Callable[[], object]) -> int:
    """How much more was resident at the most during `call` than before; than ever before if the peak cannot go."""
    gc.collect()  # garbage of earlier tests that is freed during the call would hide its growth
    forget_peak()
    before = memory_bytes("VmHWM")
    call()
    return memory_bytes("VmHWM") - before


def cpu_seconds(process: int) -> float:
    """What that process has computed so far."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
