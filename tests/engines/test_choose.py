import re
from typing import Any

import pytest

from service.engines.choose import check_device, choose_engine, find_gpu_obstacle
from service.engines.found import Machine
from service.engines.wish import EngineWish
from service.errors import DeviceUnavailable, InvalidVersion, SettingsError
from service.store.layout import Precision

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
    choice = choose_engine(machine, precisions, EngineWish(**wishes))
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
def test_auto_prefers_the_gpu_then_onnxruntime(
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
        (NO_GPU, BOTH, {}, r"There is no GPU .*\. int8 is used\. This CPU has the instructions"),
        (OLD_CPU, BOTH, {}, r"float32 is used\. This CPU lacks the instructions"),
        (NO_GPU, ("float32",), {}, r"float32 is used\. The version has no int8 network"),
        (NO_GPU, BOTH, {"device": "cpu", "precision": "float32"}, r"The CPU was asked for\. float32 was asked for"),
        (USABLE_GPU, BOTH, {"engine": "onnxruntime"}, r"onnxruntime was asked for\. int8"),
        (NO_GPU, (), {}, "The version has no network for onnxruntime"),
        (Machine(no_onnxruntime="is not installed"), BOTH, {}, "onnxruntime is missing"),
    ],
)
def test_the_reason_says_why(
    machine: Machine, precisions: tuple[Precision, ...], wishes: dict[str, Any], reason: str
) -> None:
    choice = choose_engine(machine, precisions, EngineWish(**wishes))
    assert re.search(reason, choice.reason), choice.reason
    assert choice.warning == ""


@pytest.mark.parametrize(
    ("machine", "why"),
    [
        (CPU_TENSORFLOW_BESIDE_GPU, r"without CUDA\. Uninstall it"),
        (BROKEN_CUDA, r"cannot use it\. See that"),
        (NO_TENSORFLOW_BESIDE_GPU, r"is not installed\. Run .make .*install-training TRAIN_WITH=gpu"),
    ],
)
def test_an_unused_gpu_is_a_warning_with_remedy(machine: Machine, why: str) -> None:
    choice = choose_engine(machine, BOTH, EngineWish())
    assert choice.device == "cpu"
    assert H100 in choice.warning
    assert re.search(why, choice.warning), choice.warning
    assert choose_engine(machine, BOTH, EngineWish(device="cpu")).warning == ""


def test_int8_on_an_unfit_cpu_is_a_warning() -> None:
    assert "sums may overflow" in choose_engine(OLD_CPU, BOTH, EngineWish(precision="int8")).warning


@pytest.mark.parametrize(
    ("machine", "why"),
    [
        (NO_GPU, "no GPU .*install NVIDIA's driver"),
        (CPU_TENSORFLOW_BESIDE_GPU, r"without CUDA\. Uninstall it"),
        (NO_TENSORFLOW_BESIDE_GPU, r"is not installed\. Run .make .*install-training TRAIN_WITH=gpu"),
        (BROKEN_CUDA, r"cannot use it\. See that CUDA_VISIBLE_DEVICES"),
    ],
)
def test_device_gpu_without_a_gpu_fails_with_remedy(machine: Machine, why: str) -> None:
    with pytest.raises(DeviceUnavailable, match=rf"^--device gpu fails\. .*{why}"):
        choose_engine(machine, BOTH, EngineWish(device="gpu"))


@pytest.mark.parametrize(("machine", "extra"), [(NO_TENSORFLOW, "train"), (NO_TENSORFLOW_BESIDE_GPU, "gpu")])
def test_the_savedmodel_without_tensorflow_names_the_extra_to_install(machine: Machine, extra: str) -> None:
    with pytest.raises(DeviceUnavailable, match=rf"`make .*install-training TRAIN_WITH={extra}"):
        choose_engine(machine, BOTH, EngineWish(engine="savedmodel"))


@pytest.mark.parametrize(
    ("machine", "precisions", "wishes", "what"),
    [
        (NO_GPU, (), {"engine": "onnxruntime"}, "no float32 network"),
        (NO_GPU, ("float32",), {"precision": "int8"}, "no int8 network"),
        (NO_TENSORFLOW, (), {}, "no float32 network .*--engine savedmodel, or train"),
    ],
)
def test_a_version_without_the_needed_network_is_refused(
    machine: Machine, precisions: tuple[Precision, ...], wishes: dict[str, Any], what: str
) -> None:
    with pytest.raises(InvalidVersion, match=what):
        choose_engine(machine, precisions, EngineWish(**wishes))


def test_without_onnx_runtime_the_onnxruntime_is_unavailable() -> None:
    with pytest.raises(DeviceUnavailable, match="onnxruntime is not installed"):
        choose_engine(Machine(no_onnxruntime="is not installed"), BOTH, EngineWish(engine="onnxruntime"))


def test_a_gpu_without_tensorflow_has_a_remedy() -> None:
    obstacle = find_gpu_obstacle(NO_TENSORFLOW_BESIDE_GPU)
    assert obstacle is not None
    assert re.search(r"install-training TRAIN_WITH=gpu( VENV=\S+)?`\.$", obstacle.remedy)
    assert find_gpu_obstacle(USABLE_GPU) is None


def test_flags_that_contradict_are_refused_without_a_version() -> None:
    with pytest.raises(SettingsError, match="for onnxruntime on the CPU"):
        check_device(EngineWish("savedmodel", "cpu", "int8"))
    check_device(EngineWish())


def test_a_missing_gpu_is_refused_without_a_version(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.engines.choose.inspect_machine", lambda: NO_GPU)
    with pytest.raises(DeviceUnavailable, match=r"--device gpu fails\. There is no GPU"):
        check_device(EngineWish(device="gpu"))
