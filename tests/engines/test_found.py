import sys
from pathlib import Path
from unittest.mock import Mock

import pytest

from service.engines.found import inspect_machine, list_driver_gpus

H100 = "GPU 0: NVIDIA H100 80GB HBM3"


def test_the_driver_is_asked_by_its_own_tool(tmp_path: Path) -> None:
    tool = tmp_path / "nvidia-smi"
    tool.write_text(
        '#!/bin/sh\n[ "$1" = -L ] || exit 2\n'
        "echo 'GPU 0: NVIDIA H100 80GB HBM3 (UUID: GPU-1)'\n"
        "echo '  MIG 1g.10gb Device 0: (UUID: MIG-2)'\n"
        "echo 'GPU 1: NVIDIA L4 (UUID: GPU-3)'\n"
    )
    tool.chmod(0o755)
    assert list_driver_gpus(str(tool)) == (H100, "GPU 1: NVIDIA L4")


def test_a_missing_or_silent_driver_means_no_gpu(tmp_path: Path) -> None:
    tool = tmp_path / "nvidia-smi"
    assert list_driver_gpus(str(tool), tmp_path) == ()
    tool.write_text("#!/bin/sh\necho 'NVIDIA-SMI has failed: no communication with the driver'\nexit 9\n")
    tool.chmod(0o755)
    assert list_driver_gpus(str(tool), tmp_path) == ()


def test_a_driver_without_an_answer_means_no_gpu(tmp_path: Path) -> None:
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\nsleep 9\necho 'GPU 0: NVIDIA H100 (UUID: GPU-1)'\n")
    tool.chmod(0o755)
    assert list_driver_gpus(str(tool), tmp_path, timeout_s=0.2) == ()


def test_where_the_tool_is_missing_the_device_files_tell(tmp_path: Path) -> None:
    for name in ("nvidia0", "nvidiactl", "nvidia-uvm", "null"):
        (tmp_path / name).touch()
    assert list_driver_gpus(str(tmp_path / "nvidia-smi"), tmp_path) == (str(tmp_path / "nvidia0"),)


def test_a_tensorflow_that_cannot_be_imported_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.engines.found.list_driver_gpus", lambda: (H100,))
    monkeypatch.setitem(sys.modules, "service.engines.savedmodel", None)
    machine = inspect_machine()
    assert machine.driver_gpus == (H100,)
    assert "cannot be imported (ModuleNotFoundError" in machine.no_tensorflow


def test_missing_runtimes_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.engines.found.find_spec", lambda _: None)
    machine = inspect_machine(look_for_gpu=False)
    assert machine.no_tensorflow == machine.no_onnxruntime == "is not installed"


def test_want_of_memory_is_no_fault_of_tensorflow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.engines.found.list_driver_gpus", lambda: (H100,))
    monkeypatch.setattr("service.engines.found.import_module", Mock(side_effect=MemoryError))
    with pytest.raises(MemoryError):
        inspect_machine()
