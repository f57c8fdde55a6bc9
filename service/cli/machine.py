"""What this machine has, for `flowers doctor`: packages, processor, memory."""

import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from service.machine import count_cores, memory_left

_PACKAGES = ("onnxruntime", "tensorflow", "tensorflow-cpu", "keras", "numpy", "pillow", "fastapi", "uvicorn")
_CPU_FEATURES = (  # as /proc/cpuinfo writes them; the last one is Arm's dot product
    "avx2", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "amx_int8", "asimddp",
)  # fmt: skip


def find_packages() -> dict[str, str | None]:
    """Distribution -> installed version, None where it is missing."""
    found: dict[str, str | None] = dict.fromkeys(_PACKAGES)
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def describe_cpu(cpuinfo: Path = Path("/proc/cpuinfo")) -> dict[str, Any]:
    """Model, usable cores, and the vector extensions that matter; less of it where `cpuinfo` is missing."""
    fields = dict(line.split(":", 1) for line in _read(cpuinfo).splitlines() if ":" in line)
    fields = {name.strip(): value.strip() for name, value in fields.items()}
    flags = fields.get("flags", fields.get("Features", "")).split()
    return {
        "model": fields.get("model name", platform.machine()),
        "cores": count_cores(),
        "features": [feature for feature in _CPU_FEATURES if feature in flags],
    }


def describe_memory(meminfo: Path = Path("/proc/meminfo")) -> dict[str, str]:
    """How much the machine has, and how much this process may still take; nothing where `meminfo` is missing."""
    total_kib = [int(line.split()[1]) for line in _read(meminfo).splitlines() if line.startswith("MemTotal:")]
    if not total_kib:
        return {}
    return {"total": f"{total_kib[0] / 2**20:.1f} GiB", "available": f"{memory_left(meminfo) / 2**30:.1f} GiB"}


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:  # not Linux
        return ""
