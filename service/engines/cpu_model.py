"""The networks for the light engine: where they lie in a version, and whether this CPU is made for int8."""

import platform
from collections.abc import Collection
from pathlib import Path
from typing import Literal

Precision = Literal["float32", "int8"]

CPU_MODEL_FILES: dict[Precision, str] = {
    "float32": "assets.extra/cpu_model.onnx",
    "int8": "assets.extra/cpu_model.int8.onnx",
}
"""By precision, in a version's folder; a version may have both, float32 alone, or none of them."""

_INT8_FEATURES = frozenset({"avx512_vnni", "avx_vnni", "asimddp"})  # as /proc/cpuinfo writes them; the last is Arm's


def list_precisions(files: Collection[str]) -> tuple[Precision, ...]:
    """The precisions that a version with these files has a network for."""
    return tuple(precision for precision, file in CPU_MODEL_FILES.items() if file in files)


def has_fast_int8(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Whether the CPU multiplies bytes and adds up in one instruction, which is what makes int8 pay.

    Without it int8 is no faster, and on x86 its sums can overflow: they are not what the export has checked.
    """
    try:
        words = cpuinfo.read_text(encoding="utf-8", errors="replace").split()
    except OSError:  # not Linux; every Mac with an Apple CPU can
        return platform.system() == "Darwin" and platform.machine() == "arm64"
    return not _INT8_FEATURES.isdisjoint(words)
