import re
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
from service.engines.cpu_model import CPU_MODEL_FILES, Precision
from support.exporting import export_tiny_version

from service.engines.choose import (
    Machine,
    choose_engine,
    find_gpu_problem,
    inspect_machine,
    list_driver_gpus,
    load_engine,
)
from service.errors import ChangedVersion, DeviceUnavailable, InvalidVersion, SettingsError
from service.store.verify import verify_version

H100 = "GPU 0: NVIDIA H100 80GB HBM3"
NO_GPU = Machine(has_fast_int8=True)
USABLE_GPU = Machine((H100,), has_cuda=True, tensorflow_gpus=("/physical_device:GPU:0",), has_fast_int8=True)
CPU_TENSORFLOW_BESIDE_GPU = Machine((H100,))
BROKEN_CUDA = Machine((H100,), has_cuda=True)
NO_TENSORFLOW = Machine(no_tensorflow="is not installed")
NO_TENSORFLOW_BESIDE_GPU = Machine((H100,), no_tensorflow="is not installed")
OLD_CPU = Machine()
BOTH: tuple[Precision, ...] = ("float32", "int8")


def chosen(machine: Machine, precisions: tuple[Precision, ...] = BOTH, **wishes: Any) -> tuple[str, str, str]:
    choice = choose_engine(machine, precisions, **wishes)
    return choice.engine, choice.device, choice.precision


@pytest.mark.parametrize(
    ("machine", "precisions", "expected"),
    [
        (USABLE_GPU, BOTH, ("savedmodel", "gpu", "float32")),
        (USABLE_GPU, (), ("savedmodel", "gpu", "float32")),
        (NO_GPU, BOTH, ("onnxruntime", "cpu", "int8")),
        (NO_GPU, ("float32",), ("onnxruntime", "cpu", "float32")),
        (NO_GPU, (), ("savedmodel", "cpu", "float32")),
        (OLD_CPU, BOTH, ("onnxruntime", "cpu", "float32")),
        (NO_TENSORFLOW, BOTH, ("onnxruntime", "cpu", "float32")),
        (NO_TENSORFLOW_BESIDE_GPU, BOTH, ("onnxruntime", "cpu", "float32")),
        (BROKEN_CUDA, BOTH, ("onnxruntime", "cpu", "float32")),
        (Machine(no_onnxruntime="is not installed"), BOTH, ("savedmodel", "cpu", "float32")),
    ],
)
def test_auto_is_the_gpu_else_the_light_engine_else_the_savedmodel(
    machine: Machine, precisions: tuple[Precision, ...], expected: tuple[str, str, str]
) -> None:
    assert chosen(machine, precisions) == expected


@pytest.mark.parametrize(
    ("machine", "wishes", "expected"),
    [
        (USABLE_GPU, {"device": "cpu"}, ("onnxruntime", "cpu", "int8")),
        (USABLE_GPU, {"device": "gpu"}, ("savedmodel", "gpu", "float32")),
        (USABLE_GPU, {"engine": "onnxruntime"}, ("onnxruntime", "cpu", "int8")),
        (USABLE_GPU, {"engine": "savedmodel"}, ("savedmodel", "gpu", "float32")),
        (USABLE_GPU, {"precision": "int8"}, ("onnxruntime", "cpu", "int8")),
        (USABLE_GPU, {"precision": "float32"}, ("savedmodel", "gpu", "float32")),
        (NO_GPU, {"engine": "savedmodel"}, ("savedmodel", "cpu", "float32")),
        (NO_GPU, {"precision": "float32"}, ("onnxruntime", "cpu", "float32")),
        (OLD_CPU, {"precision": "int8"}, ("onnxruntime", "cpu", "int8")),
    ],
)
def test_what_is_asked_for_is_taken(machine: Machine, wishes: dict[str, Any], expected: tuple[str, str, str]) -> None:
    assert chosen(machine, **wishes) == expected


@pytest.mark.parametrize(
    ("machine", "precisions", "wishes", "reason"),
    [
        (USABLE_GPU, BOTH, {}, "TensorFlow can use /physical_device:GPU:0"),
        (NO_GPU, BOTH, {}, "there is no GPU .*; int8, as this CPU has the instructions"),
        (OLD_CPU, BOTH, {}, "float32, as this CPU lacks the instructions"),
        (NO_GPU, ("float32",), {}, "float32, as the version has no int8 network"),
        (NO_GPU, BOTH, {"device": "cpu", "precision": "float32"}, "the CPU was asked for; float32 was asked for"),
        (USABLE_GPU, BOTH, {"engine": "onnxruntime"}, "the light engine was asked for; int8"),
        (NO_GPU, (), {}, "the version has no network for the light engine"),
        (Machine(no_onnxruntime="is not installed"), BOTH, {}, "ONNX Runtime is missing"),
    ],
)
def test_the_reason_says_why(
    machine: Machine, precisions: tuple[Precision, ...], wishes: dict[str, Any], reason: str
) -> None:
    choice = choose_engine(machine, precisions, **wishes)
    assert re.search(reason, choice.reason), choice.reason
    assert choice.warning == ""


@pytest.mark.parametrize(
    ("machine", "why"),
    [
        (CPU_TENSORFLOW_BESIDE_GPU, "without CUDA: uninstall it"),
        (BROKEN_CUDA, "cannot use it: see that"),
        (NO_TENSORFLOW_BESIDE_GPU, "is not installed: run .make .*install-training TRAIN_WITH=gpu"),
    ],
)
def test_a_gpu_that_stays_unused_is_a_warning_with_the_remedy(machine: Machine, why: str) -> None:
    choice = choose_engine(machine, BOTH)
    assert choice.device == "cpu"
    assert H100 in choice.warning
    assert re.search(why, choice.warning), choice.warning
    assert choose_engine(machine, BOTH, device="cpu").warning == ""


def test_int8_on_a_cpu_that_is_not_made_for_it_is_a_warning() -> None:
    assert "sums may overflow" in choose_engine(OLD_CPU, BOTH, precision="int8").warning


@pytest.mark.parametrize(
    ("machine", "why"),
    [
        (NO_GPU, "no GPU .*install NVIDIA's driver"),
        (CPU_TENSORFLOW_BESIDE_GPU, "without CUDA: uninstall it"),
        (NO_TENSORFLOW_BESIDE_GPU, "is not installed: run .make .*install-training TRAIN_WITH=gpu"),
        (BROKEN_CUDA, "cannot use it: see that CUDA_VISIBLE_DEVICES"),
    ],
)
def test_device_gpu_without_a_usable_gpu_fails_with_reason_and_remedy(machine: Machine, why: str) -> None:
    with pytest.raises(DeviceUnavailable, match=f"^--device gpu: .*{why}"):
        choose_engine(machine, BOTH, device="gpu")


@pytest.mark.parametrize(
    ("wishes", "what"),
    [
        ({"engine": "abacus"}, "no engine 'abacus'"),
        ({"engine": "onnxruntime", "device": "gpu"}, "computes on the CPU"),
        ({"engine": "savedmodel", "precision": "int8"}, "for the light engine"),
        ({"device": "gpu", "precision": "int8"}, "for the light engine"),
    ],
)
def test_wishes_that_do_not_go_together_are_refused(wishes: dict[str, Any], what: str) -> None:
    with pytest.raises(SettingsError, match=what):
        choose_engine(USABLE_GPU, BOTH, **wishes)


@pytest.mark.parametrize(("machine", "extra"), [(NO_TENSORFLOW, "train"), (NO_TENSORFLOW_BESIDE_GPU, "gpu")])
def test_the_savedmodel_without_tensorflow_names_the_extra_to_install(machine: Machine, extra: str) -> None:
    with pytest.raises(DeviceUnavailable, match=rf"`make .*install-training TRAIN_WITH={extra}"):
        choose_engine(machine, BOTH, engine="savedmodel")


@pytest.mark.parametrize(
    ("machine", "precisions", "wishes", "what"),
    [
        (NO_GPU, (), {"engine": "onnxruntime"}, "no float32 network"),
        (NO_GPU, ("float32",), {"precision": "int8"}, "no int8 network"),
        (NO_TENSORFLOW, (), {}, "no float32 network .*--engine savedmodel, or train"),
    ],
)
def test_a_version_without_the_network_that_is_needed_is_refused(
    machine: Machine, precisions: tuple[Precision, ...], wishes: dict[str, Any], what: str
) -> None:
    with pytest.raises(InvalidVersion, match=what):
        choose_engine(machine, precisions, **wishes)


def test_without_onnx_runtime_the_light_engine_is_unavailable() -> None:
    with pytest.raises(DeviceUnavailable, match="ONNX Runtime is not installed"):
        choose_engine(Machine(no_onnxruntime="is not installed"), BOTH, engine="onnxruntime")


def test_a_gpu_without_tensorflow_is_a_problem_with_a_remedy() -> None:
    problem = find_gpu_problem(NO_TENSORFLOW_BESIDE_GPU)
    assert problem is not None
    assert problem.remedy.endswith("install-training TRAIN_WITH=gpu`")
    assert find_gpu_problem(USABLE_GPU) is None


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


def test_no_driver_and_a_driver_that_does_not_answer_mean_no_gpu(tmp_path: Path) -> None:
    tool = tmp_path / "nvidia-smi"
    assert list_driver_gpus(str(tool), tmp_path) == ()
    tool.write_text("#!/bin/sh\necho 'NVIDIA-SMI has failed: no communication with the driver'\nexit 9\n")
    tool.chmod(0o755)
    assert list_driver_gpus(str(tool), tmp_path) == ()


def test_where_the_tool_is_missing_the_device_files_tell(tmp_path: Path) -> None:
    for name in ("nvidia0", "nvidiactl", "nvidia-uvm", "null"):
        (tmp_path / name).touch()
    assert list_driver_gpus(str(tmp_path / "nvidia-smi"), tmp_path) == (str(tmp_path / "nvidia0"),)


def test_a_version_from_before_there_was_a_light_engine_runs_on_the_savedmodel(tmp_path: Path) -> None:
    folder = export_tiny_version(tmp_path / "store", cpu_models=False) / "flowers" / "1"
    engine = load_engine(verify_version(folder), device="cpu")
    assert engine.info.engine == "savedmodel"
    assert "no network for the light engine" in engine.info.reason


def test_a_tensorflow_that_cannot_be_imported_is_unavailable(
    tiny_version: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "service.engines.savedmodel", None)
    with pytest.raises(DeviceUnavailable, match="TensorFlow cannot be imported"):
        load_engine(verify_version(tiny_version / "flowers" / "1"), engine="savedmodel", device="cpu")


@pytest.mark.parametrize("engine", ["auto", "onnxruntime", "savedmodel"])
def test_this_machine_gives_an_engine_that_shows_what_was_chosen(tiny_version: Path, engine: str) -> None:
    choice = choose_engine(inspect_machine(), BOTH, engine=engine)
    loaded = load_engine(verify_version(tiny_version / "flowers" / "1"), engine=engine)
    loaded.warm_up(2)
    info = loaded.info
    assert (info.engine, info.device, info.precision) == (choice.engine, choice.device, choice.precision)
    assert (info.reason, info.warning) == (choice.reason, choice.warning)


@pytest.mark.parametrize("engine", ["onnxruntime", "savedmodel"])
def test_a_network_swapped_after_verification_is_not_loaded(tiny_version: Path, tmp_path: Path, engine: str) -> None:
    """By another one that is sound, and only its digest differs."""
    folder = tmp_path / "1"
    shutil.copytree(tiny_version / "flowers" / "1", folder)
    verified = verify_version(folder)
    for file in ("saved_model.pb", *CPU_MODEL_FILES.values()):
        other = folder / (CPU_MODEL_FILES["int8"] if file.endswith("model.onnx") else file)
        (tmp_path / "other").write_bytes(other.read_bytes() + b"\x78\x01" * file.endswith("pb"))
        (tmp_path / "other").replace(folder / file)
    with pytest.raises(ChangedVersion, match="of version 1 was changed while the version was loaded"):
        load_engine(verified, engine=engine, device="cpu", precision="float32")


def test_a_savedmodel_swapped_and_put_back_is_not_taken(
    tiny_version: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "1"
    shutil.copytree(tiny_version / "flowers" / "1", folder)
    verified, closed = verify_version(folder), []
    program = folder / "saved_model.pb"

    class Swapping:
        def __init__(self, *_: object, **__: object) -> None:
            program.rename(tmp_path / "aside")
            program.write_bytes(b"an attack")
            (tmp_path / "aside").replace(program)

        def close(self) -> None:
            closed.append(True)

    monkeypatch.setattr("service.engines.savedmodel.SavedModelEngine", Swapping)
    with pytest.raises(ChangedVersion):
        load_engine(verified, engine="savedmodel", device="cpu")
    assert closed
