import os
import platform
import resource
import sys
from pathlib import Path

import pytest

from service.machine import (
    bounded_queue_bytes,
    can_allocate,
    count_cores,
    cpu_features,
    cpu_model,
    data_bytes,
    has_fast_int8,
    memory_left,
    total_memory,
)

GIB = 2**30
VERSION_1, VERSION_2 = "4:memory:/{0}\n3:cpu,cpuacct:/{0}\n2:pids:/else\n", "0::/{0}\n"


def describe(folder: Path, groups: str, files: dict[str, int | str]) -> tuple[Path, Path]:
    """Write what Linux would say of the groups: /proc/self/cgroup, and /sys/fs/cgroup."""
    (folder / "groups").write_text(groups, encoding="utf-8")
    for name, value in files.items():
        path = folder / "root" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{value}\n", encoding="utf-8")
    return folder / "groups", folder / "root"


def left_with(folder: Path, groups: str, files: dict[str, int | str]) -> int:
    """On a machine with 8 GiB left."""
    (folder / "meminfo").write_text("MemTotal: 16777216 kB\nMemAvailable:    8388608 kB\n", encoding="utf-8")
    return memory_left(folder / "meminfo", *describe(folder, groups, files))


@pytest.mark.parametrize(
    ("groups", "files", "expected"),
    [
        (VERSION_2.format(""), {}, 8),
        (VERSION_2.format(""), {"memory.max": "max", "memory.current": 5}, 8),
        (VERSION_2.format(""), {"memory.max": 3 * GIB, "memory.current": GIB}, 2),
        (VERSION_2.format("a/b"), {"a/b/memory.max": 3 * GIB, "a/b/memory.current": GIB}, 2),
        (VERSION_2.format("a/b"), {"a/memory.max": 3 * GIB, "a/memory.current": GIB, "a/b/memory.max": "max"}, 2),
        (VERSION_2.format(""), {"memory.max": GIB, "memory.current": 2 * GIB}, 0),
        (VERSION_1.format("a"), {"memory/a/memory.limit_in_bytes": 4 * GIB, "memory/a/memory.usage_in_bytes": GIB}, 3),
        (VERSION_1.format("host/path"), {"memory/memory.limit_in_bytes": GIB, "memory/memory.usage_in_bytes": 0}, 1),
        (VERSION_1.format(""), {"memory/memory.limit_in_bytes": 2**63 - 4096, "memory/memory.usage_in_bytes": 0}, 8),
    ],
)
def test_free_memory_heeds_the_machine_and_its_control_group(
    groups: str, files: dict[str, int | str], expected: int, tmp_path: Path
) -> None:
    assert left_with(tmp_path, groups, files) == expected * GIB


def test_without_control_groups_it_is_the_machines(tmp_path: Path) -> None:
    left_with(tmp_path, "", {})
    assert memory_left(tmp_path / "meminfo", tmp_path / "missing", tmp_path / "missing") == 8 * GIB


def test_where_memory_is_not_told_of_nothing_is_left(tmp_path: Path) -> None:
    assert memory_left(tmp_path / "missing", tmp_path, tmp_path) == 0


@pytest.mark.parametrize(
    ("groups", "files", "expected"),
    [
        (VERSION_2.format(""), {}, 8),
        (VERSION_2.format(""), {"cpu.max": "max 100000"}, 8),
        (VERSION_2.format(""), {"cpu.max": "200000 100000"}, 2),
        (VERSION_2.format(""), {"cpu.max": "150000 100000"}, 2),
        (VERSION_2.format(""), {"cpu.max": "10000 100000"}, 1),
        (VERSION_2.format(""), {"cpu.max": "6400000 100000"}, 8),
        (VERSION_2.format("a/b"), {"a/cpu.max": "200000 100000", "a/b/cpu.max": "max 100000"}, 2),
        (VERSION_1.format(""), {"cpu/cpu.cfs_quota_us": -1, "cpu/cpu.cfs_period_us": 100000}, 8),
        (VERSION_1.format("a"), {"cpu/a/cpu.cfs_quota_us": 300000, "cpu/a/cpu.cfs_period_us": 100000}, 3),
        (VERSION_1.format("host/path"), {"cpu/cpu.cfs_quota_us": 50000, "cpu/cpu.cfs_period_us": 25000}, 2),
        ("5:cpuset:/b\n3:cpu:/a\n", {"cpu/b/cpu.cfs_quota_us": 50000, "cpu/b/cpu.cfs_period_us": 25000}, 8),
    ],
)
def test_cores_heed_the_machine_and_its_control_group(
    groups: str, files: dict[str, int | str], expected: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    assert count_cores(*describe(tmp_path, groups, files)) == expected


def test_without_control_groups_the_affinity_counts_the_cores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {2, 5, 7}, raising=False)
    assert count_cores(tmp_path / "missing", tmp_path / "missing") == 3


@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux")
@pytest.mark.parametrize(("limit", "field"), [(resource.RLIMIT_AS, 0), (resource.RLIMIT_DATA, 5)])
def test_the_processs_own_limits_count(limit: int, field: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pages = ["0"] * 7
    pages[field] = "1000"
    (tmp_path / "statm").write_text(" ".join(pages))
    (tmp_path / "meminfo").write_text("MemTotal: 16777216 kB\nMemAvailable: 8388608 kB\n")
    limits = {limit: (2 * GIB, resource.RLIM_INFINITY)}
    unlimited = resource.RLIM_INFINITY, resource.RLIM_INFINITY
    monkeypatch.setattr(resource, "getrlimit", lambda kind: limits.get(kind, unlimited))
    missing = tmp_path / "missing"
    found = memory_left(tmp_path / "meminfo", missing, missing, tmp_path / "statm")
    assert found == 2 * GIB - 1000 * resource.getpagesize()


def test_own_data_is_the_sixth_number_of_pages(tmp_path: Path) -> None:
    (tmp_path / "statm").write_text("10 9 8 7 0 3 0\n", encoding="utf-8")
    assert data_bytes(tmp_path / "statm") == 3 * resource.getpagesize()
    assert data_bytes(tmp_path / "missing") == 0


def test_cached_files_of_a_group_count_as_free(tmp_path: Path) -> None:
    files: dict[str, int | str] = {
        "memory.max": GIB,
        "memory.current": GIB - 1000,
        "memory.stat": "anon 5\ninactive_file 400000\nx 1",
    }
    assert left_with(tmp_path, VERSION_2.format(""), files) == 401_000


@pytest.mark.parametrize(
    ("groups", "files", "stat"),
    [
        (VERSION_2, ("memory.max", "memory.current", "memory.stat"), "active_file 300000\nfile_mapped 100000"),
        (VERSION_2, ("memory.max", "memory.current", "memory.stat"), "inactive_file 200000\nfile_mapped 100000"),
        (
            VERSION_1,
            ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "memory/memory.stat"),
            "active_file 5\ntotal_active_file 300000\ntotal_mapped_file 100000",
        ),
    ],
)
def test_photographs_read_twice_count_as_free(
    groups: str, files: tuple[str, str, str], stat: str, tmp_path: Path
) -> None:
    sizes: dict[str, int | str] = dict(zip(files, (GIB, GIB - 1000, stat), strict=True))
    assert left_with(tmp_path, groups.format(""), sizes) == 201_000


@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux")
def test_memory_beyond_a_limit_cannot_be_allocated() -> None:
    assert can_allocate(1024)
    assert not can_allocate(2**62)
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    taken = int(Path("/proc/self/statm").read_text().split()[5]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_DATA, (taken + 64 * 1024 * 1024, hard))
    try:
        assert can_allocate(16 * 1024 * 1024)
        assert not can_allocate(256 * 1024 * 1024)
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


@pytest.mark.parametrize(
    ("memory_bytes", "expected"), [(GIB, 256), (1000, 256), (500, 250), (0, 256)], ids=["much", "enough", "few", "?"]
)
def test_waiting_images_take_at_most_half_of_the_memory(memory_bytes: int, expected: int) -> None:
    assert bounded_queue_bytes(256, memory_bytes) == expected


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ("flags\t\t: fpu sse2 avx2 avx512f avx512_vnni", True),
        ("flags\t\t: fpu sse2 avx2 avx_vnni", True),
        ("Features\t: fp asimd asimddp", True),
        ("flags\t\t: fpu sse2 avx2 avx512f", False),
        ("model name\t: the avx_vnni_less one\nflags\t\t: avx2", False),
    ],
)
def test_the_cpu_is_asked_for_the_instructions(tmp_path: Path, flags: str, expected: bool) -> None:
    (tmp_path / "cpuinfo").write_text(f"processor\t: 0\n{flags}\n\n")
    assert has_fast_int8(tmp_path / "cpuinfo") == expected


@pytest.mark.parametrize(("system", "machine", "expected"), [("Darwin", "arm64", True), ("Windows", "AMD64", False)])
def test_without_cpuinfo_only_a_mac_is_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, system: str, machine: str, expected: bool
) -> None:
    monkeypatch.setattr("platform.system", lambda: system)
    monkeypatch.setattr("platform.machine", lambda: machine)
    assert has_fast_int8(tmp_path / "missing") == expected


def test_model_and_instruction_sets_are_read_from_cpuinfo(tmp_path: Path) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("processor\t: 0\nmodel name\t: A CPU @ 2 GHz: fast\nflags\t\t: fpu avx2 avx512f\n\n" * 2)
    assert cpu_model(cpuinfo) == "A CPU @ 2 GHz: fast"
    assert cpu_features(cpuinfo) == {"fpu", "avx2", "avx512f"}


def test_arm_writes_instruction_sets_in_another_field(tmp_path: Path) -> None:
    (tmp_path / "cpuinfo").write_text("processor\t: 0\nFeatures\t: fp asimd asimddp\n")
    assert cpu_features(tmp_path / "cpuinfo") == {"fp", "asimd", "asimddp"}


def test_a_machine_without_proc_has_no_details(tmp_path: Path) -> None:
    assert cpu_features(tmp_path / "missing") == frozenset()
    assert cpu_model(tmp_path / "missing") == platform.machine()
    assert total_memory(tmp_path / "missing") == 0


def test_the_memory_of_the_machine_is_in_bytes(tmp_path: Path) -> None:
    (tmp_path / "meminfo").write_text("MemTotal: 2097152 kB\nMemAvailable: 524288 kB\n")
    assert total_memory(tmp_path / "meminfo") == 2 * GIB
