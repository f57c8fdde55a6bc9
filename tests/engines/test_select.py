from pathlib import Path

import pytest

from service.engines.select import (
    Machine,
    choose_engine,
    find_gpu_problem,
    inspect_machine,
    list_driver_gpus,
    load_engine,
)
from service.errors import DeviceUnavailable, SettingsError

H100 = "GPU 0: NVIDIA H100 80GB HBM3"
NO_GPU = Machine()
USABLE_GPU = Machine((H100,), has_cuda=True, tensorflow_gpus=("/physical_device:GPU:0",))
CPU_TENSORFLOW_BESIDE_GPU = Machine((H100,))
BROKEN_CUDA = Machine((H100,), has_cuda=True)
NO_TENSORFLOW = Machine(no_tensorflow="is not installed")


def test_auto_takes_the_gpu_that_tensorflow_can_use() -> None:
    choice = choose_engine(USABLE_GPU, engine="auto", device="auto")
    assert (choice.engine, choice.device) == ("savedmodel", "gpu")
    assert "/physical_device:GPU:0" in choice.reason


def test_auto_takes_the_cpu_without_a_gpu_and_says_so() -> None:
    choice = choose_engine(NO_GPU, engine="auto", device="auto")
    assert (choice.engine, choice.device) == ("savedmodel", "cpu")
    assert "nvidia-smi" in choice.reason
    assert "warning" not in choice.reason


@pytest.mark.parametrize(
    ("machine", "why"), [(CPU_TENSORFLOW_BESIDE_GPU, "without CUDA"), (BROKEN_CUDA, "cannot use it")]
)
def test_a_gpu_that_stays_unused_is_a_warning_in_the_reason(machine: Machine, why: str) -> None:
    choice = choose_engine(machine, engine="auto", device="auto")
    assert choice.device == "cpu"
    assert choice.reason.startswith("warning")
    assert H100 in choice.reason
    assert why in choice.reason


def test_the_cpu_is_taken_when_asked_for_even_beside_a_gpu() -> None:
    choice = choose_engine(USABLE_GPU, engine="savedmodel", device="cpu")
    assert (choice.device, choice.reason) == ("cpu", "the CPU was asked for")


@pytest.mark.parametrize(
    ("machine", "why"),
    [
        (NO_GPU, "no GPU .*install NVIDIA's driver"),
        (CPU_TENSORFLOW_BESIDE_GPU, "without CUDA: install the extra gpu"),
        (BROKEN_CUDA, "cannot use it: see that CUDA_VISIBLE_DEVICES"),
    ],
)
def test_device_gpu_without_a_usable_gpu_fails_with_reason_and_remedy(machine: Machine, why: str) -> None:
    with pytest.raises(DeviceUnavailable, match=f"^--device gpu: .*{why}"):
        choose_engine(machine, engine="auto", device="gpu")


@pytest.mark.parametrize("device", ["auto", "cpu", "gpu"])
def test_without_tensorflow_the_extra_to_install_is_named(device: str) -> None:
    with pytest.raises(DeviceUnavailable, match=r"flowers-service\[cpu\]"):
        choose_engine(NO_TENSORFLOW, engine="auto", device=device)  # type: ignore[arg-type]
    with pytest.raises(DeviceUnavailable, match=r"flowers-service\[gpu\]"):
        choose_engine(Machine((H100,), no_tensorflow="is not installed"), engine="auto", device=device)  # type: ignore[arg-type]


def test_an_unknown_engine_is_refused() -> None:
    with pytest.raises(SettingsError, match="no engine 'abacus'"):
        choose_engine(NO_GPU, engine="abacus", device="auto")


def test_a_gpu_without_tensorflow_is_a_problem_with_a_remedy() -> None:
    problem = find_gpu_problem(Machine((H100,), no_tensorflow="is not installed"))
    assert problem is not None
    assert problem.remedy == "install the extra gpu"
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
    assert list_driver_gpus(str(tool)) == ()
    tool.write_text("#!/bin/sh\necho 'NVIDIA-SMI has failed: no communication with the driver'\nexit 9\n")
    tool.chmod(0o755)
    assert list_driver_gpus(str(tool)) == ()


def test_this_machine_gives_an_engine_that_shows_what_was_chosen(tiny_version: Path) -> None:
    choice = choose_engine(inspect_machine(), engine="auto", device="auto")
    engine = load_engine(tiny_version / "flowers" / "1")
    engine.warm_up(2)
    info = engine.info
    assert (info.engine, info.device, info.reason) == (choice.engine, choice.device, choice.reason)
