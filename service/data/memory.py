"""How much memory a training may take."""

from collections.abc import Iterator
from pathlib import Path

_LIMIT_AND_TAKEN = (("memory.max", "memory.current"), ("memory.limit_in_bytes", "memory.usage_in_bytes"))


def memory_left(
    meminfo: Path = Path("/proc/meminfo"), groups: Path = Path("/proc/self/cgroup"), root: Path = Path("/sys/fs/cgroup")
) -> int:
    """Bytes that Linux, and the limit of the container or control group of either version, still give.

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
    for folder in _memory_groups(groups, root):
        for limit, taken in _LIMIT_AND_TAKEN:
            try:
                left = min(left, _number(folder / limit) - _number(folder / taken))
            except (OSError, ValueError):  # not of this version, or without a limit: "max"
                continue
    return max(0, left)


def _memory_groups(groups: Path, root: Path) -> Iterator[Path]:
    """The group itself, and the root, which is all that a container may see of it."""
    yield root
    try:
        lines = groups.read_text(encoding="utf-8").splitlines()
    except OSError:
        return
    for line in lines:  # "0::/path" in version 2, "4:memory:/path" in version 1
        _, controllers, path = line.split(":", 2)
        if not controllers or "memory" in controllers.split(","):
            base = root / "memory" if controllers else root
            yield base
            yield base / path.lstrip("/")


def _number(path: Path) -> int:
    return int(path.read_text(encoding="utf-8"))
