from pathlib import Path

import pytest

from service.data.memory import memory_left

GIB = 2**30
VERSION_1, VERSION_2 = "4:memory:/{}\n3:cpu,cpuacct:/else\n", "0::/{}\n"


def left_with(folder: Path, groups: str, files: dict[str, int | str]) -> int:
    """On a machine with 8 GiB left, in control groups that are described by these files."""
    (folder / "meminfo").write_text("MemTotal: 16777216 kB\nMemAvailable:    8388608 kB\n", encoding="utf-8")
    (folder / "groups").write_text(groups, encoding="utf-8")
    for name, value in files.items():
        path = folder / "root" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{value}\n", encoding="utf-8")
    return memory_left(folder / "meminfo", folder / "groups", folder / "root")


@pytest.mark.parametrize(
    ("groups", "files", "expected"),
    [
        (VERSION_2.format(""), {}, 8),
        (VERSION_2.format(""), {"memory.max": "max", "memory.current": 5}, 8),
        (VERSION_2.format(""), {"memory.max": 3 * GIB, "memory.current": GIB}, 2),
        (VERSION_2.format("a/b"), {"a/b/memory.max": 3 * GIB, "a/b/memory.current": GIB}, 2),
        (VERSION_2.format(""), {"memory.max": GIB, "memory.current": 2 * GIB}, 0),
        (VERSION_1.format("a"), {"memory/a/memory.limit_in_bytes": 4 * GIB, "memory/a/memory.usage_in_bytes": GIB}, 3),
        (VERSION_1.format("host/path"), {"memory/memory.limit_in_bytes": GIB, "memory/memory.usage_in_bytes": 0}, 1),
        (VERSION_1.format(""), {"memory/memory.limit_in_bytes": 2**63 - 4096, "memory/memory.usage_in_bytes": 0}, 8),
    ],
)
def test_the_memory_that_is_left_is_the_machines_or_the_groups(
    groups: str, files: dict[str, int | str], expected: int, tmp_path: Path
) -> None:
    assert left_with(tmp_path, groups, files) == expected * GIB


def test_without_control_groups_it_is_the_machines(tmp_path: Path) -> None:
    left_with(tmp_path, "", {})
    assert memory_left(tmp_path / "meminfo", tmp_path / "missing", tmp_path / "missing") == 8 * GIB


def test_where_memory_is_not_told_of_nothing_is_left(tmp_path: Path) -> None:
    assert memory_left(tmp_path / "missing", tmp_path, tmp_path) == 0
