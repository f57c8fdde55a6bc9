"""The number format that a training computes in: bfloat16 where the machine multiplies it faster, else float32."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import keras

_CPU_FLAGS = frozenset({"avx512_bf16", "amx_bf16"})


def fastest_precision(cpu_info: Path = Path("/proc/cpuinfo")) -> str:
    """The Keras dtype policy to train with: weights are float32 in both, "mixed_bfloat16" multiplies in bfloat16.

    A CPU without instructions for bfloat16 emulates it, 25 times slower than float32; one with them gains a third
    (`benchmarks/training.py`). GPUs train in float32: the network is small enough for that.

    Args:
        cpu_info: where Linux lists the CPU's flags; elsewhere there is none, and the answer is "float32".
    """
    if keras.distribution.list_devices("gpu"):
        return "float32"
    try:
        words = cpu_info.read_text(encoding="utf-8").split()
    except OSError:
        return "float32"
    return "float32" if _CPU_FLAGS.isdisjoint(words) else "mixed_bfloat16"


@contextmanager
def compute_precision(policy: str) -> Iterator[None]:
    """Layers built inside compute by this policy, wherever they are called later."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)
