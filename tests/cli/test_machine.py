from importlib.metadata import version
from pathlib import Path

from service.cli.machine import describe_cpu, describe_memory, find_packages


def test_the_vector_extensions_are_read_from_cpuinfo(tmp_path: Path) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    block = "processor\t: 0\nmodel name\t: A CPU @ 2 GHz: fast\nflags\t\t: fpu avx avx2 avx512f avx512_vnni\n\n"
    cpuinfo.write_text(block * 2)
    cpu = describe_cpu(cpuinfo)
    assert cpu["model"] == "A CPU @ 2 GHz: fast"
    assert cpu["features"] == ["avx2", "avx512f", "avx512_vnni"]
    assert cpu["cores"] >= 1


def test_arm_writes_them_in_another_field(tmp_path: Path) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("processor\t: 0\nFeatures\t: fp asimd asimddp\n")
    assert describe_cpu(cpuinfo)["features"] == ["asimddp"]


def test_a_machine_without_proc_is_described_as_far_as_possible(tmp_path: Path) -> None:
    assert describe_cpu(tmp_path / "missing")["features"] == []
    assert describe_memory(tmp_path / "missing") == {}


def test_memory_is_in_gib(tmp_path: Path) -> None:
    (tmp_path / "meminfo").write_text("MemTotal: 2097152 kB\nMemAvailable: 524288 kB\nBuffers: 4 kB\n")
    assert describe_memory(tmp_path / "meminfo") == {"total": "2.0 GiB", "available": "0.5 GiB"}


def test_packages_that_are_missing_are_listed_too() -> None:
    packages = find_packages()
    assert packages["numpy"] == version("numpy")
    assert {"tensorflow", "tensorflow-cpu"} <= packages.keys()
    assert not (packages["tensorflow"] and packages["tensorflow-cpu"])
