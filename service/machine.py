"""Cores, memory and CPU of the machine, as far as limits and control groups let this process use them."""

import math
import mmap
import os
import platform
import sys
from collections.abc import Iterator
from pathlib import Path

if sys.platform != "win32":
    import resource

_CPUINFO, _MEMINFO = Path("/proc/cpuinfo"), Path("/proc/meminfo")
_GROUPS, _ROOT = Path("/proc/self/cgroup"), Path("/sys/fs/cgroup")  # the process's groups, and where all are mounted
_FAST_INT8 = frozenset({"avx512_vnni", "avx_vnni", "asimddp"})  # multiply bytes and add up; the last is Arm's
# The files of version 2, then those of version 1.
_CPU_QUOTA_AND_PERIOD = (("cpu.max",), ("cpu.cfs_quota_us", "cpu.cfs_period_us"))
_MEMORY_LIMIT_AND_TAKEN = (("memory.max", "memory.current"), ("memory.limit_in_bytes", "memory.usage_in_bytes"))
# Pages of files: read once, read again, and those that programs run from. Version 1 also has sums over its children.
_FILE_PAGES = (
    ("inactive_file", "active_file", "file_mapped"),
    ("total_inactive_file", "total_active_file", "total_mapped_file"),
)
_OWN_PAGES = Path("/proc/self/statm")
_VIRTUAL, _DATA = 0, 5  # fields of that file
_NO_RESERVE = 0x4000  # mmap(2), MAP_NORESERVE; Python 3.11 does not name it


def count_cores(groups: Path = _GROUPS, root: Path = _ROOT) -> int:
    """Count the cores that this process may keep busy. A control group's quota is rounded up.

    With a thread for each core of the node, a quota would be used up early in every period.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quotas = [quota for folder in _folders("cpu", groups, root) if (quota := _cpu_quota(folder)) is not None]
    return max(1, min([cores, *map(math.ceil, quotas)]))


def cpu_features(cpuinfo: Path = _CPUINFO) -> frozenset[str]:
    """Return the instruction sets of the CPU as Linux names them. Elsewhere there are none."""
    fields = _fields(cpuinfo)
    return frozenset(fields.get("flags", fields.get("Features", "")).split())


def cpu_model(cpuinfo: Path = _CPUINFO) -> str:
    """Return the name of the CPU, or its architecture where Linux does not tell."""
    return _fields(cpuinfo).get("model name", platform.machine())


def has_fast_int8(cpuinfo: Path = _CPUINFO) -> bool:
    """Return whether one instruction multiplies bytes and adds up. Without it sums can overflow on x86."""
    if not cpuinfo.exists():  # every Mac with an Apple CPU has it
        return platform.system() == "Darwin" and platform.machine() == "arm64"
    return not _FAST_INT8.isdisjoint(cpu_features(cpuinfo))


def total_memory(meminfo: Path = _MEMINFO) -> int:
    """Return the machine's memory in bytes. 0 means that it is unknown."""
    return _memory_field("MemTotal", meminfo) or 0


def memory_left(
    meminfo: Path = _MEMINFO, groups: Path = _GROUPS, root: Path = _ROOT, own_pages: Path = _OWN_PAGES
) -> int:
    """Return the bytes that the machine, the control groups, RLIMIT_AS and RLIMIT_DATA leave.

    Elsewhere than on Linux the answer is 0, which means unknown.
    """
    left = _memory_field("MemAvailable", meminfo)
    if left is None:
        return 0
    for folder in _folders("memory", groups, root):
        for limit, taken in _MEMORY_LIMIT_AND_TAKEN:
            try:
                group_left = int(_read(folder / limit)) - int(_read(folder / taken)) + _reclaimable(folder)
            except (OSError, ValueError):  # not of this version, or without a limit: "max"
                continue
            left = min(left, group_left)
    return max(0, min([left, *_left_by_own_limits(own_pages)]))


def data_bytes(own_pages: Path = _OWN_PAGES) -> int:
    """Return the process's memory in bytes that counts against RLIMIT_DATA. 0 means that it is unknown."""
    return _own_bytes(_DATA, own_pages)


def can_allocate(num_bytes: int) -> bool:
    """Return whether the process may map that much more memory. It is mapped and given back at once.

    RLIMIT_DATA, RLIMIT_AS and a machine without overcommitment refuse it. A control group's limit does not.
    Elsewhere than on Linux the answer is True.
    """
    if sys.platform != "linux" or num_bytes <= 0:
        return True
    try:
        # Private, since shared memory does not count as data.
        mmap.mmap(-1, num_bytes, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _NO_RESERVE).close()
    except (OSError, OverflowError, MemoryError):
        return False
    return True


def bounded_queue_bytes(wanted: int, memory_bytes: int) -> int:
    """Return the limit of waiting bytes: `wanted`, or half of `memory_bytes` if that is less and known (not 0)."""
    return min(wanted, memory_bytes // 2) if memory_bytes else wanted


def _fields(path: Path) -> dict[str, str]:
    try:
        lines = _read(path).splitlines()
    except OSError:  # not Linux
        return {}
    return {name.strip(): value.strip() for name, colon, value in (line.partition(":") for line in lines) if colon}


def _memory_field(name: str, meminfo: Path) -> int | None:
    try:
        return int(_fields(meminfo)[name].removesuffix("kB")) * 1024
    except (KeyError, ValueError):
        return None


def _left_by_own_limits(own_pages: Path) -> Iterator[int]:
    if sys.platform != "linux":
        return
    for limit, field in ((resource.RLIMIT_AS, _VIRTUAL), (resource.RLIMIT_DATA, _DATA)):
        most, _ = resource.getrlimit(limit)
        if most != resource.RLIM_INFINITY and (own_bytes := _own_bytes(field, own_pages)):
            yield most - own_bytes


def _own_bytes(field: int, own_pages: Path) -> int:
    try:
        return int(_read(own_pages).split()[field]) * mmap.PAGESIZE
    except OSError:  # not Linux
        return 0


def _reclaimable(group: Path) -> int:
    """Return the bytes of the page cache that the kernel gives back on demand, without programs' pages."""
    try:
        fields = dict(line.split() for line in _read(group / "memory.stat").splitlines())
        sizes = [[int(fields.get(name, 0)) for name in names] for names in _FILE_PAGES]
    except (OSError, ValueError):
        return 0
    return max(inactive + max(0, active - mapped) for inactive, active, mapped in sizes)


def _cpu_quota(folder: Path) -> float | None:
    """Return the CPUs that the group may use on average, or None without a limit."""
    for files in _CPU_QUOTA_AND_PERIOD:
        try:
            quota_us, period_us = map(int, " ".join(_read(folder / file) for file in files).split())
        except (OSError, ValueError):  # not of this version, or without a limit: "max"
            continue
        if quota_us > 0 and period_us > 0:  # version 1 says -1 where there is no limit
            return quota_us / period_us
    return None


def _folders(controller: str, groups: Path, root: Path) -> Iterator[Path]:
    """Yield the folders of the group and of all above it. A container may see the root alone."""
    yield root
    try:
        lines = _read(groups).splitlines()
    except OSError:
        return
    for line in lines:  # "0::/path" in version 2, "4:memory:/path" in version 1
        _, controllers, path = line.split(":", 2)
        if not controllers or controller in controllers.split(","):
            folder = root / controller if controllers else root
            yield folder
            for name in Path(path).parts[1:]:
                folder /= name
                yield folder


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace").strip()
