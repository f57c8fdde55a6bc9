"""Which engine runs a version on this machine, and why: "auto" becomes a choice that can be explained."""

import subprocess
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from service.engines.engine import Engine
from service.errors import DeviceUnavailable, SettingsError

_NVIDIA_SMI_TIMEOUT_S = 20.0  # the first call may wake the driver


@dataclass(frozen=True)
class Machine:
    """What was found here.

    `driver_gpus` as `nvidia-smi -L` lists them, `tensorflow_gpus` as TensorFlow names those it can use;
    `has_cuda`: the installed TensorFlow was built for GPUs; `no_tensorflow`: why there is none, or empty.
    """

    driver_gpus: tuple[str, ...] = ()
    no_tensorflow: str = ""
    has_cuda: bool = False
    tensorflow_gpus: tuple[str, ...] = ()


@dataclass(frozen=True)
class Choice:
    """An engine, its device, and the reason in one sentence."""

    engine: Literal["savedmodel"]
    device: Literal["gpu", "cpu"]
    reason: str


@dataclass(frozen=True)
class Problem:
    """What was found that should not be, and what to do about it; two clauses."""

    what: str
    remedy: str


def load_engine(
    folder: Path, *, engine: str = "auto", device: Literal["auto", "gpu", "cpu"] = "auto", threads: int = 0
) -> Engine:
    """Load a verified version with the engine and on the device that `choose_engine` takes; not warmed up.

    Args:
        folder: of the version.
        engine: "auto" or "savedmodel".
        device: "auto" takes a GPU when TensorFlow can use one.
        threads: inside one engine call on the CPU; 0: the engine's own choice.

    Raises:
        DeviceUnavailable: the device cannot be used, or the engine's library is not installed.
        InvalidVersion: the folder has no network that the engine can run.
        SettingsError: no such engine; or another number of threads than this process already runs with.
    """
    choice = choose_engine(inspect_machine(), engine=engine, device=device)
    from service.engines.savedmodel import SavedModelEngine

    return SavedModelEngine(folder, device=choice.device, reason=choice.reason, threads=threads)


def choose_engine(machine: Machine, *, engine: str, device: Literal["auto", "gpu", "cpu"]) -> Choice:
    """The SavedModel on the GPU if TensorFlow can use one, else on the CPU; with the reason.

    Raises:
        DeviceUnavailable: `device` is "gpu" and there is none, or TensorFlow is missing; says what to do.
        SettingsError: no such engine.
    """
    if engine not in ("auto", "savedmodel"):
        raise SettingsError(f"there is no engine {engine!r}: take auto or savedmodel")
    if machine.no_tensorflow:
        extra = "gpu" if machine.driver_gpus else "cpu"
        raise DeviceUnavailable(
            f"TensorFlow {machine.no_tensorflow}, and the engine needs it: install the extra {extra} "
            f"(pip install 'flowers-service[{extra}]'), or start with `make serve`"
        )
    missing = find_gpu_problem(machine)
    if device == "gpu" and missing:
        raise DeviceUnavailable(f"--device gpu: {missing.what}: {missing.remedy}, or take --device cpu")
    if device == "cpu":
        return Choice("savedmodel", "cpu", "the CPU was asked for")
    if not missing:
        return Choice("savedmodel", "gpu", f"TensorFlow can use {machine.tensorflow_gpus[0]}")
    warning = "warning, a GPU stays unused: " if machine.driver_gpus else ""
    return Choice("savedmodel", "cpu", warning + missing.what)


def find_gpu_problem(machine: Machine) -> Problem | None:
    """Why TensorFlow has no GPU here; nothing if it has one."""
    if machine.tensorflow_gpus:
        return None
    if not machine.driver_gpus:
        return Problem("there is no GPU (`nvidia-smi -L` lists none)", "if there should be, install NVIDIA's driver")
    seen = f"the driver lists {machine.driver_gpus[0]}"
    if machine.no_tensorflow:
        return Problem(f"{seen}, but TensorFlow {machine.no_tensorflow}", "install the extra gpu")
    if not machine.has_cuda:
        return Problem(f"{seen}, but this TensorFlow was built without CUDA", "install the extra gpu, not cpu")
    return Problem(
        f"{seen}, but TensorFlow cannot use it",
        "see that CUDA_VISIBLE_DEVICES does not hide it, install the extra gpu anew, and read TensorFlow's "
        "own log (TF_CPP_MIN_LOG_LEVEL=0)",
    )


def inspect_machine() -> Machine:
    """Ask the driver, and TensorFlow if it is installed (which imports it: seconds)."""
    driver_gpus = list_driver_gpus()
    if find_spec("tensorflow") is None:
        return Machine(driver_gpus, no_tensorflow="is not installed")
    try:
        savedmodel = import_module("service.engines.savedmodel")
        has_cuda, tensorflow_gpus = savedmodel.is_built_with_cuda(), savedmodel.list_tensorflow_gpus()
    except Exception as error:  # what two half-removed distributions raise, nobody can list
        return Machine(driver_gpus, no_tensorflow=f"cannot be imported ({type(error).__name__}: {error})")
    return Machine(driver_gpus, has_cuda=has_cuda, tensorflow_gpus=tensorflow_gpus)


def list_driver_gpus(command: str = "nvidia-smi") -> tuple[str, ...]:
    """The GPUs that NVIDIA's driver lists, one name each; none where there is no driver."""
    try:
        listing = subprocess.run(  # noqa: S603 - a fixed command, no shell
            [command, "-L"], capture_output=True, text=True, check=True, timeout=_NVIDIA_SMI_TIMEOUT_S
        )
    except (OSError, subprocess.SubprocessError):
        return ()
    # GPU 0: NVIDIA H100 80GB HBM3 (UUID: GPU-...); MIG instances follow indented.
    return tuple(line.partition(" (UUID")[0] for line in listing.stdout.splitlines() if line.startswith("GPU "))
