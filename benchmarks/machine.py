"""Machine that a benchmark runs on, in words, and the folder of the results."""

from pathlib import Path

from service.cli.doctor import describe_cpu, describe_memory, find_packages
from service.engines.found import list_driver_gpus

RESULTS = Path(__file__).with_name("results")


def describe_machine() -> dict[str, object]:
    """Describe cores, vector extensions, memory, GPUs and packages, without names or paths."""
    return {
        "cpu": describe_cpu(),
        "memory": describe_memory().get("total"),
        "gpu": list_driver_gpus() or "none",
        "packages": {name: version for name, version in find_packages().items() if version},
    }
