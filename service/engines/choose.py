"""Choice of the engine for a version on this machine, with its reason."""

from collections.abc import Sequence
from dataclasses import dataclass

from service.engines.engine import EngineInfo
from service.engines.found import Machine, inspect_machine
from service.engines.wish import EngineWish
from service.errors import DeviceUnavailable, InvalidVersion
from service.installation import install_command
from service.store.layout import Precision

_NO_FAST_INT8 = "This CPU lacks the instructions for int8."


@dataclass(frozen=True)
class Obstacle:
    """A fault of the installation and its remedy, a sentence each."""

    what: str
    remedy: str


def choose_engine(machine: Machine, precisions: Sequence[Precision], wish: EngineWish) -> EngineInfo:
    """Choose the SavedModel on a GPU, else onnxruntime, else the SavedModel on the CPU.

    `precisions` are those of the version's networks for onnxruntime. Raises `DeviceUnavailable` if the device or the
    library of the engine is missing, `InvalidVersion` without such a network, and as `EngineWish.check`.
    """
    wish.check()
    obstacle = find_gpu_obstacle(machine)
    if wish.device == "gpu" and obstacle:
        raise _no_gpu(obstacle)
    wants_onnxruntime = wish.engine == "onnxruntime" or wish.precision == "int8"
    if wish.device != "cpu" and not wants_onnxruntime and not obstacle:
        return EngineInfo("savedmodel", "gpu", "float32", f"TensorFlow can use {machine.tensorflow_gpus[0]}.")
    why, warning = "The CPU was asked for.", ""
    if wants_onnxruntime:
        why = "onnxruntime was asked for."
    elif wish.device != "cpu" and obstacle:
        why, warning = obstacle.what, f"{obstacle.what} {obstacle.remedy}" if machine.driver_gpus else ""
    error = _refuse_onnxruntime(machine, precisions, wish)
    if wish.engine != "savedmodel" and error is None:
        chosen, because = _choose_precision(machine, precisions, wish)
        if chosen == "int8" and not machine.has_fast_int8:
            warning = f"{_NO_FAST_INT8} Its sums may overflow, and it is no faster. Take --precision auto."
        return EngineInfo("onnxruntime", "cpu", chosen, f"{why} {because}", warning)
    if error is not None and wants_onnxruntime:
        raise error
    if machine.no_tensorflow:
        raise error or no_tensorflow(machine.no_tensorflow, "gpu" if machine.driver_gpus else "cpu")
    if error is not None and wish.engine == "auto":
        lacking = "onnxruntime is missing." if machine.no_onnxruntime else "The version has no network for onnxruntime."
        why = f"{why} {lacking}"
    return EngineInfo("savedmodel", "cpu", "float32", why, warning)


def check_device(wish: EngineWish) -> None:
    """Refuse a wish that no version could meet. Raises `DeviceUnavailable` or `SettingsError`."""
    wish.check()
    if wish.device == "gpu" and (obstacle := find_gpu_obstacle(inspect_machine())):
        raise _no_gpu(obstacle)


def find_gpu_obstacle(machine: Machine) -> Obstacle | None:
    """Return why TensorFlow has no GPU, or None if it has one."""
    if machine.tensorflow_gpus:
        return None
    if not machine.driver_gpus:
        return Obstacle("There is no GPU (`nvidia-smi -L` lists none).", "If there should be, install NVIDIA's driver.")
    seen, install = f"The driver lists {machine.driver_gpus[0]}", f"`{install_command('gpu')}`"
    if machine.no_tensorflow:
        return Obstacle(f"{seen}, but TensorFlow {machine.no_tensorflow}.", f"Run {install}.")
    if not machine.has_cuda:
        return Obstacle(f"{seen}, but this TensorFlow was built without CUDA.", f"Uninstall it, then run {install}.")
    return Obstacle(
        f"{seen}, but TensorFlow cannot use it.",
        f"See that CUDA_VISIBLE_DEVICES does not hide it, run {install}, and read TensorFlow's "
        "own log (TF_CPP_MIN_LOG_LEVEL=0).",
    )


def no_tensorflow(why: str, device: str) -> DeviceUnavailable:
    """Return the error of a SavedModel without TensorFlow."""
    command = install_command("gpu" if device == "gpu" else "train")
    return DeviceUnavailable(f"TensorFlow {why}. The SavedModel's engine needs it. Run `{command}`.")


def _refuse_onnxruntime(
    machine: Machine, precisions: Sequence[Precision], wish: EngineWish
) -> DeviceUnavailable | InvalidVersion | None:
    if machine.no_onnxruntime:
        return DeviceUnavailable(
            f"onnxruntime {machine.no_onnxruntime}. The engine of that name needs it. Install this package anew."
        )
    wanted = "float32" if wish.precision == "auto" else wish.precision
    if wanted not in precisions:
        return InvalidVersion(
            f"The version has no {wanted} network for onnxruntime (under cpu_models, its metadata may say why). "
            "Take --engine savedmodel, or train a new version."
        )
    return None


def _choose_precision(machine: Machine, precisions: Sequence[Precision], wish: EngineWish) -> tuple[Precision, str]:
    if wish.precision != "auto":
        return wish.precision, f"{wish.precision} was asked for."
    if not machine.has_fast_int8:
        return "float32", f"float32 is used. {_NO_FAST_INT8}"
    if "int8" not in precisions:
        return "float32", "float32 is used. The version has no int8 network."
    return "int8", "int8 is used. This CPU has the instructions, and the version's checks allow it."


def _no_gpu(obstacle: Obstacle) -> DeviceUnavailable:
    return DeviceUnavailable(f"--device gpu fails. {obstacle.what} {obstacle.remedy} Otherwise take --device cpu.")
