"""Which engine runs a version on this machine, and why: "auto" becomes a choice that can be explained."""

import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from service.engines.cpu_model import CPU_MODEL_FILES, Precision, has_fast_int8, list_precisions
from service.engines.engine import Engine, no_memory_to_load
from service.errors import DeviceUnavailable, InvalidVersion, SettingsError, is_out_of_memory
from service.installation import install_command
from service.store.verify import VerifiedVersion

_NVIDIA_SMI_TIMEOUT_S = 20.0  # the first call may wake the driver
_NO_FAST_INT8 = "this CPU lacks the instructions for int8"
Device = Literal["gpu", "cpu"]


@dataclass(frozen=True)
class Machine:
    """What was found here.

    `driver_gpus` as `nvidia-smi -L` lists them, `tensorflow_gpus` as TensorFlow names those it can use, which it was
    asked for only where there is a driver; `has_cuda`: the installed TensorFlow was built for GPUs; `no_tensorflow`,
    `no_onnxruntime`: why there is none, or empty; `has_fast_int8`: the CPU has the instructions for it.
    """

    driver_gpus: tuple[str, ...] = ()
    no_tensorflow: str = ""
    has_cuda: bool = False
    tensorflow_gpus: tuple[str, ...] = ()
    no_onnxruntime: str = ""
    has_fast_int8: bool = False


@dataclass(frozen=True)
class Choice:
    """An engine, its device, its precision, and the reason in one sentence; `warning`: what was not as it should be."""

    engine: Literal["savedmodel", "onnxruntime"]
    device: Device
    precision: Precision
    reason: str
    warning: str = ""


@dataclass(frozen=True)
class Problem:
    """What was found that should not be, and what to do about it; two clauses."""

    what: str
    remedy: str


def load_engine(
    version: VerifiedVersion,
    *,
    engine: str = "auto",
    device: Literal["auto", "gpu", "cpu"] = "auto",
    precision: Literal["auto", "float32", "int8"] = "auto",
    threads: int = 0,
    gpu_memory_limit_mb: int = 0,
) -> Engine:
    """Load a verified version with what `choose_engine` takes; not warmed up. What is loaded is what was verified.

    Args:
        version: as `verify_version` returns it.
        engine: "auto", "savedmodel" or "onnxruntime".
        device: "auto" takes a GPU when TensorFlow can use one.
        precision: "auto" takes int8 where the version has it and the CPU is made for it.
        threads: cores to compute on; 0: all that `count_cores` counts.
        gpu_memory_limit_mb: most memory to take on a GPU; 0: as much as it comes to need.

    Raises:
        DeviceUnavailable: the device cannot be used, or the engine's library is not installed.
        InvalidVersion: the version has no network that the engine can run.
        ChangedVersion: its files are no longer those that were verified.
        OutOfMemory: there is not enough memory for it.
        SettingsError: no such engine, or wishes that do not go together; or another number of threads than
            TensorFlow already runs with in this process.
    """
    machine = inspect_machine(look_for_gpu=device != "cpu")
    choice = choose_engine(machine, list_precisions(version.digests), engine=engine, device=device, precision=precision)
    if choice.engine == "onnxruntime":
        from service.engines.onnx_runtime import OnnxRuntimeEngine

        return OnnxRuntimeEngine(
            version.read(CPU_MODEL_FILES[choice.precision]),
            version=version.folder.name,
            precision=choice.precision,
            reason=choice.reason,
            warning=choice.warning,
            threads=threads,
        )
    try:
        from service.engines.savedmodel import SavedModelEngine
    except Exception as error:  # what two half-removed distributions raise, nobody can list
        if is_out_of_memory(error):
            raise no_memory_to_load(version.folder.name) from error
        raise _no_tensorflow(f"cannot be imported ({type(error).__name__}: {error})", choice.device) from error
    try:
        loaded = SavedModelEngine(
            version.folder,
            device=choice.device,
            reason=choice.reason,
            warning=choice.warning,
            threads=threads,
            gpu_memory_limit_mb=gpu_memory_limit_mb,
        )
    except InvalidVersion:
        version.check_unchanged()  # else it may be another one that cannot be loaded
        raise
    try:
        version.check_unchanged()
    except InvalidVersion:
        loaded.close()
        raise
    return loaded


def choose_engine(
    machine: Machine,
    precisions: Sequence[Precision],
    *,
    engine: str = "auto",
    device: Literal["auto", "gpu", "cpu"] = "auto",
    precision: Literal["auto", "float32", "int8"] = "auto",
) -> Choice:
    """The SavedModel on the GPU if TensorFlow can use one, else the light engine, else the SavedModel on the CPU.

    Args:
        machine: what there is.
        precisions: that the version has networks for the light engine in.
        engine, device, precision: the wishes, as `load_engine` takes them.

    Raises:
        DeviceUnavailable, InvalidVersion, SettingsError: as `load_engine`; says what to do.
    """
    _check_wishes(engine, device, precision)
    missing = find_gpu_problem(machine)
    if device == "gpu" and missing:
        raise _no_gpu(missing)
    if device != "cpu" and engine != "onnxruntime" and precision != "int8" and not missing:
        return Choice("savedmodel", "gpu", "float32", f"TensorFlow can use {machine.tensorflow_gpus[0]}")
    why, warning = "the CPU was asked for", ""
    if engine == "onnxruntime" or precision == "int8":
        why = "the light engine was asked for"
    elif device != "cpu" and missing:
        why, warning = missing.what, f"{missing.what}: {missing.remedy}" if machine.driver_gpus else ""
    no_light = _why_not_light(machine, precisions, precision)
    if engine != "savedmodel" and no_light is None:
        chosen, because = _choose_precision(machine, precisions, precision)
        if chosen == "int8" and not machine.has_fast_int8:
            warning = f"{_NO_FAST_INT8}: its sums may overflow, and it is no faster; take --precision auto"
        return Choice("onnxruntime", "cpu", chosen, f"{why}; {because}", warning)
    if no_light is not None and (engine == "onnxruntime" or precision == "int8"):
        raise no_light
    if machine.no_tensorflow:
        raise no_light or _no_tensorflow(machine.no_tensorflow, "gpu" if machine.driver_gpus else "cpu")
    if no_light is not None and engine == "auto":
        lacking = "the version has no network for the light engine"
        why = f"{why}; {'ONNX Runtime is missing' if machine.no_onnxruntime else lacking}"
    return Choice("savedmodel", "cpu", "float32", why, warning)


def check_device(*, engine: str, device: Literal["auto", "gpu", "cpu"], precision: str) -> None:
    """What `load_engine` would refuse whatever the version, said before there is one.

    Raises:
        DeviceUnavailable: a GPU was asked for, and TensorFlow has none.
        SettingsError: no such engine, or wishes that do not go together.
    """
    _check_wishes(engine, device, precision)
    if device == "gpu" and (missing := find_gpu_problem(inspect_machine())):
        raise _no_gpu(missing)


def find_gpu_problem(machine: Machine) -> Problem | None:
    """Why TensorFlow has no GPU here; nothing if it has one."""
    if machine.tensorflow_gpus:
        return None
    if not machine.driver_gpus:
        return Problem("there is no GPU (`nvidia-smi -L` lists none)", "if there should be, install NVIDIA's driver")
    seen = f"the driver lists {machine.driver_gpus[0]}"
    if machine.no_tensorflow:
        return Problem(f"{seen}, but TensorFlow {machine.no_tensorflow}", f"run `{install_command('gpu')}`")
    if not machine.has_cuda:
        return Problem(
            f"{seen}, but this TensorFlow was built without CUDA", f"uninstall it, then `{install_command('gpu')}`"
        )
    return Problem(
        f"{seen}, but TensorFlow cannot use it",
        f"see that CUDA_VISIBLE_DEVICES does not hide it, run `{install_command('gpu')}`, and read TensorFlow's "
        "own log (TF_CPP_MIN_LOG_LEVEL=0)",
    )


def inspect_machine(*, look_for_gpu: bool = True) -> Machine:
    """Ask the driver; and where that has a GPU, TensorFlow, which imports it: seconds, and hundreds of megabytes."""
    no_tensorflow = "" if find_spec("tensorflow") else "is not installed"
    no_onnxruntime = "" if find_spec("onnxruntime") else "is not installed"
    driver_gpus = list_driver_gpus() if look_for_gpu else ()
    has_cuda, tensorflow_gpus = False, ()
    if driver_gpus and not no_tensorflow:
        try:
            savedmodel = import_module("service.engines.savedmodel")
            has_cuda, tensorflow_gpus = savedmodel.is_built_with_cuda(), savedmodel.list_tensorflow_gpus()
        except Exception as error:  # as above
            if is_out_of_memory(error):
                raise
            no_tensorflow = f"cannot be imported ({type(error).__name__}: {error})"
    return Machine(driver_gpus, no_tensorflow, has_cuda, tensorflow_gpus, no_onnxruntime, has_fast_int8())


def list_driver_gpus(command: str = "nvidia-smi", devices: Path = Path("/dev")) -> tuple[str, ...]:
    """The GPUs that NVIDIA's driver lists, one name each; by their device files where its tool is missing."""
    try:
        listing = subprocess.run(  # noqa: S603 - a fixed command, no shell
            [command, "-L"], capture_output=True, text=True, check=True, timeout=_NVIDIA_SMI_TIMEOUT_S
        )
    except FileNotFoundError:  # a container may be given the GPU and not the tool
        return tuple(str(path) for path in sorted(devices.glob("nvidia[0-9]*")))
    except (OSError, subprocess.SubprocessError):
        return ()
    # GPU 0: NVIDIA H100 80GB HBM3 (UUID: GPU-...); MIG instances follow indented.
    return tuple(line.partition(" (UUID")[0] for line in listing.stdout.splitlines() if line.startswith("GPU "))


def _check_wishes(engine: str, device: str, precision: str) -> None:
    if engine not in ("auto", "savedmodel", "onnxruntime"):
        raise SettingsError(f"there is no engine {engine!r}: take auto, savedmodel or onnxruntime")
    if engine == "onnxruntime" and device == "gpu":
        raise SettingsError("--engine onnxruntime computes on the CPU: leave out --device gpu, or the engine")
    if precision == "int8" and (engine == "savedmodel" or device == "gpu"):
        raise SettingsError("--precision int8 is for the light engine on the CPU: leave out --engine and --device")


def _why_not_light(
    machine: Machine, precisions: Sequence[Precision], precision: str
) -> DeviceUnavailable | InvalidVersion | None:
    if machine.no_onnxruntime:
        return DeviceUnavailable(
            f"ONNX Runtime {machine.no_onnxruntime}, and the light engine needs it: install this package anew"
        )
    wanted = "float32" if precision == "auto" else precision
    if wanted not in precisions:
        return InvalidVersion(
            f"the version has no {wanted} network for the light engine (under cpu_models, its metadata may say why): "
            "take --engine savedmodel, or train a new version"
        )
    return None


def _choose_precision(machine: Machine, precisions: Sequence[Precision], wish: str) -> tuple[Precision, str]:
    if wish == "int8":
        return "int8", "int8 was asked for"
    if wish == "float32":
        return "float32", "float32 was asked for"
    if not machine.has_fast_int8:
        return "float32", f"float32, as {_NO_FAST_INT8}"
    if "int8" not in precisions:
        return "float32", "float32, as the version has no int8 network"
    return "int8", "int8, as this CPU has the instructions and the version's checks allow it"


def _no_gpu(missing: Problem) -> DeviceUnavailable:
    return DeviceUnavailable(f"--device gpu: {missing.what}: {missing.remedy}, or take --device cpu")


def _no_tensorflow(why: str, device: Device) -> DeviceUnavailable:
    extra = "gpu" if device == "gpu" else "train"
    return DeviceUnavailable(f"TensorFlow {why}, and the SavedModel's engine needs it: run `{install_command(extra)}`")
