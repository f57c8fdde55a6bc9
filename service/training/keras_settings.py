"""Settings of Keras for a training: backend, axes, devices and number formats."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import keras

from service.machine import cpu_features

_CPU_FLAGS = frozenset({"avx512_bf16", "amx_bf16"})


def reset_keras_settings() -> None:
    """Give Keras the settings that the networks are written for.

    `keras.json` in the user's `KERAS_HOME` may ask for others. Its backend is read at the import.
    """
    keras.config.set_image_data_format("channels_last")
    keras.config.set_floatx("float32")
    keras.config.set_epsilon(1e-7)


def can_export() -> bool:
    """Return whether Keras computes on TensorFlow, which the export needs."""
    return str(keras.backend.backend()) == "tensorflow"


def has_gpu() -> bool:
    """Return whether Keras computes on a GPU."""
    return any(name.startswith("gpu") for name in keras.distribution.list_devices())


def fastest_precision(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """Return the Keras dtype policy to train with. "mixed_bfloat16" has float32 weights and multiplies in bfloat16.

    A CPU without instructions for bfloat16 emulates it, 25 times slower than float32. One with them gains a third
    (`benchmarks/training.py`). GPUs train in float32. `cpuinfo` lists the CPU's flags on Linux.
    """
    is_float32 = has_gpu() or _CPU_FLAGS.isdisjoint(cpu_features(cpuinfo))
    return "float32" if is_float32 else "mixed_bfloat16"


@contextmanager
def compute_precision(policy: str) -> Iterator[None]:
    """Let the layers built inside compute by this policy, wherever they are called later."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)
