"""Runtimes and GPUs that this machine has."""

import subprocess
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

from service.errors import is_out_of_memory
from service.machine import has_fast_int8

_TIMEOUT_S = 20.0  # the first call may wake the driver


@dataclass(frozen=True)
class Machine:
    """Runtimes and GPUs. TensorFlow is asked only if the driver has a GPU."""

    driver_gpus: tuple[str, ...] = ()
    no_tensorflow: str = ""  # why it cannot be used, if it cannot
    has_cuda: bool = False  # TensorFlow was built for GPUs
    tensorflow_gpus: tuple[str, ...] = ()
    no_onnxruntime: str = ""  # why it cannot be used, if it cannot
    has_fast_int8: bool = False


def inspect_machine(*, look_for_gpu: bool = True) -> Machine:
    """Find the runtimes, and the GPUs if `look_for_gpu`. Beside a GPU TensorFlow is imported, which takes seconds."""
    no_tensorflow = "" if find_spec("tensorflow") else "is not installed"
    no_onnxruntime = "" if find_spec("onnxruntime") else "is not installed"
    driver_gpus = list_driver_gpus() if look_for_gpu else ()
    has_cuda, tensorflow_gpus = False, ()
    if driver_gpus and not no_tensorflow:
        try:
            savedmodel = import_module("service.engines.savedmodel")
            has_cuda, tensorflow_gpus = savedmodel.is_built_with_cuda(), savedmodel.list_tensorflow_gpus()
        except Exception as error:  # two half-removed distributions can raise anything
            if is_out_of_memory(error):
                raise
            no_tensorflow = f"cannot be imported ({type(error).__name__}: {error})"
    return Machine(driver_gpus, no_tensorflow, has_cuda, tensorflow_gpus, no_onnxruntime, has_fast_int8())


def list_driver_gpus(
    command: str = "nvidia-smi", devices: Path = Path("/dev"), timeout_s: float = _TIMEOUT_S
) -> tuple[str, ...]:
    """List the GPUs of NVIDIA's driver by name, or by device file where its tool is missing.

    A tool that fails, or that does not answer within `timeout_s`, means no GPU.
    """
    try:
        listing = subprocess.run(  # noqa: S603 - a fixed command, no shell
            [command, "-L"], capture_output=True, text=True, check=True, timeout=timeout_s
        )
    except FileNotFoundError:  # a container may be given the GPU and not the tool
        return tuple(str(path) for path in sorted(devices.glob("nvidia[0-9]*")))
    except (OSError, subprocess.SubprocessError):
        return ()
    # GPU 0: NVIDIA H100 80GB HBM3 (UUID: GPU-...); MIG instances follow indented.
    return tuple(line.partition(" (UUID")[0] for line in listing.stdout.splitlines() if line.startswith("GPU "))


def gpu_memory_bytes(command: str = "nvidia-smi", timeout_s: float = _TIMEOUT_S) -> int:
    """Return the memory of the first GPU that NVIDIA's driver lists, in bytes. 0 means none, or unknown."""
    try:
        listing = subprocess.run(  # noqa: S603 - a fixed command, no shell
            [command, "--query-gpu=memory.total", "--format=csv,noheader,nounits"],
            capture_output=True, text=True, check=True, timeout=timeout_s,
        )  # fmt: skip
        return int(listing.stdout.split()[0]) * 1024 * 1024
    except (OSError, subprocess.SubprocessError, ValueError, IndexError):
        return 0
