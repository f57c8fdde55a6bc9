"""What this process may take of the machine: cores and memory, the limits of its container or control group counted."""

import math
import os
from collections.abc import Iterator
from pathlib import Path

_FEW_CORES = 4  # measured with two

_MEMINFO, _GROUPS, _ROOT = Path("/proc/meminfo"), Path("/proc/self/cgroup"), Path("/sys/fs/cgroup")
# The files of version 2, then those of version 1.
_CPU_QUOTA_AND_PERIOD = (("cpu.max",), ("cpu.cfs_quota_us", "cpu.cfs_period_us"))
_MEMORY_LIMIT_AND_TAKEN = (("memory.max", "memory.current"), ("memory.limit_in_bytes", "memory.usage_in_bytes"))


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


def memory_left(meminfo: Path = _MEMINFO, groups: Path = _GROUPS, root: Path = _ROOT) -> int:
    """Bytes that Linux, and the limits of the control groups of either version, still give.

    Args:
        meminfo: what Linux says of the machine; where it is missing, the answer is 0.
        groups: the control groups that this process is in.
        root: where they are mounted.
    """
    try:
        fields = dict(line.split(":") for line in meminfo.read_text(encoding="utf-8").splitlines())
        left = int(fields["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return 0
    for folder in _folders("memory", groups, root):
        for limit, taken in _MEMORY_LIMIT_AND_TAKEN:
            try:
                left = min(left, int(_read(folder / limit)) - int(_read(folder / taken)))
            except (OSError, ValueError):  # not of this version, or without a limit: "max"
                continue
    return max(0, left)


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
