from pathlib import Path

import pytest
from service.engines.cpu_model import CPU_MODEL_FILES, has_fast_int8, list_precisions


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
def test_where_it_cannot_be_asked_only_a_mac_is_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, system: str, machine: str, expected: bool
) -> None:
    monkeypatch.setattr("platform.system", lambda: system)
    monkeypatch.setattr("platform.machine", lambda: machine)
    assert has_fast_int8(tmp_path / "missing") == expected


def test_a_version_has_the_precisions_that_it_has_files_for() -> None:
    assert list_precisions(["saved_model.pb"]) == ()
    assert list_precisions(["saved_model.pb", CPU_MODEL_FILES["float32"]]) == ("float32",)
    assert list_precisions(CPU_MODEL_FILES.values()) == ("float32", "int8")
