"""What this process may take of the machine: cores and memory, the limits of its container or control group counted."""

import math
import mmap
import os
import sys
from collections.abc import Iterator
from pathlib import Path

if sys.platform != "win32":
    import resource

_FEW_CORES = 4  # measured with two

_MEMINFO, _GROUPS, _ROOT = Path("/proc/meminfo"), Path("/proc/self/cgroup"), Path("/sys/fs/cgroup")
# The files of version 2, then those of version 1.
_CPU_QUOTA_AND_PERIOD = (("cpu.max",), ("cpu.cfs_quota_us", "cpu.cfs_period_us"))
_MEMORY_LIMIT_AND_TAKEN = (("memory.max", "memory.current"), ("memory.limit_in_bytes", "memory.usage_in_bytes"))
_MEMORY_DETAILS = "memory.stat"
# Pages of files: read once, read again, and those that programs run from. Version 1 also has sums over its children.
_FILE_PAGES = (
    ("inactive_file", "active_file", "file_mapped"),
    ("total_inactive_file", "total_active_file", "total_mapped_file"),
)
_OWN_PAGES = Path("/proc/self/statm")
_VIRTUAL, _DATA = 0, 5  # fields of that file
_NO_RESERVE = 0x4000  # mmap(2), MAP_NORESERVE; Python 3.11 does not name it


def count_cores(groups: Path = _GROUPS, root: Path = _ROOT) -> int:
    """Cores that this process may keep busy: those that it may run on, or fewer where a group's quota is smaller.

    A container with a limit of two CPUs sees all cores of its node; threads for each would use the quota up early in
    every period, and stand still for the rest of it.

    Args:
        groups: the control groups that this process is in.
        root: where they are mounted.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quotas = [quota for folder in _folders("cpu", groups, root) if (quota := _cpu_quota(folder)) is not None]
    return max(1, min([cores, *map(math.ceil, quotas)]))


def pinnable_cores(threads: int = 0, groups: Path = _GROUPS, root: Path = _ROOT) -> tuple[int, ...]:
    """The numbers of the cores that so many threads may be tied to, one each; none where that would harm.

    That is: on a single core, with more or fewer threads than cores; under a quota, since all others on the node may
    run on the same cores; and with many cores, of which the kernel finds an idle one, and other programs want some.

    Args:
        threads: how many; 0: as many as there are cores.
        groups: the control groups that this process is in.
        root: where they are mounted.
    """
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    is_limited = any(_cpu_quota(folder) is not None for folder in _folders("cpu", groups, root))
    return tuple(cores) if 1 < len(cores) <= _FEW_CORES and threads in (0, len(cores)) and not is_limited else ()


def memory_left(
    meminfo: Path = _MEMINFO, groups: Path = _GROUPS, root: Path = _ROOT, own_pages: Path = _OWN_PAGES
) -> int:
    """Bytes that Linux, the control groups of either version, and the process's own limits still give.

    Args:
        meminfo: what Linux says of the machine; where it is missing, the answer is 0.
        groups: the control groups that this process is in.
        root: where they are mounted.
        own_pages: what this process takes, for RLIMIT_AS and RLIMIT_DATA.
    """
    try:
        fields = dict(line.split(":") for line in meminfo.read_text(encoding="utf-8").splitlines())
        left = int(fields["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return 0
    for folder in _folders("memory", groups, root):
        for limit, taken in _MEMORY_LIMIT_AND_TAKEN:
            try:
                group_left = int(_read(folder / limit)) - int(_read(folder / taken)) + _reclaimable(folder)
            except (OSError, ValueError):  # not of this version, or without a limit: "max"
                continue
            left = min(left, group_left)
    return max(0, min([left, *_left_by_own_limits(own_pages)]))


def can_allocate(num_bytes: int) -> bool:
    """Whether the process may take so much more memory. It is mapped and given back at once, untouched.

    RLIMIT_DATA, RLIMIT_AS and a machine that overcommits nothing refuse it. A control group's limit does not: beyond
    that the kernel kills. Elsewhere than on Linux the answer is True.
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
    """The bound on bytes of images that wait: `wanted`, or half of the memory there is, as joining takes it twice.

    Args:
        wanted: as it is set.
        memory_bytes: as `memory_left` says; 0: that is not known.
    """
    return min(wanted, memory_bytes // 2) if memory_bytes else wanted


def _left_by_own_limits(own_pages: Path) -> Iterator[int]:
    if sys.platform != "linux":
        return
    try:
        pages = own_pages.read_text(encoding="utf-8").split()
    except OSError:
        return
    for limit, field in ((resource.RLIMIT_AS, _VIRTUAL), (resource.RLIMIT_DATA, _DATA)):
        most, _ = resource.getrlimit(limit)
        if most != resource.RLIM_INFINITY:
            yield most - int(pages[field]) * resource.getpagesize()


def _reclaimable(group: Path) -> int:
    """Bytes of the page cache that the kernel gives back on demand, which count as taken.

    A photograph that was read twice is an active page. Pages that programs run from are not counted.
    """
    try:
        fields = dict(line.split() for line in _read(group / _MEMORY_DETAILS).splitlines())
        sizes = [[int(fields.get(name, 0)) for name in names] for names in _FILE_PAGES]
    except (OSError, ValueError):
        return 0
    return max(inactive + max(0, active - mapped) for inactive, active, mapped in sizes)


def _cpu_quota(folder: Path) -> float | None:
    """CPUs that the group may use on average; None where there is no limit."""
    for files in _CPU_QUOTA_AND_PERIOD:
        try:
            quota_us, period_us = map(int, " ".join(_read(folder / file) for file in files).split())
        except (OSError, ValueError):  # not of this version, or without a limit: "max"
            continue
        if quota_us > 0 and period_us > 0:  # version 1 says -1 where there is no limit
            return quota_us / period_us
    return None


def _folders(controller: str, groups: Path, root: Path) -> Iterator[Path]:
    """Those of the group and of all above it, whose limits hold as well; the root is all that a container may see."""
    yield root
    try:
        lines = groups.read_text(encoding="utf-8").splitlines()
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
    return path.read_text(encoding="utf-8").strip()
