"""The wish for an engine: values of the settings, before it is known what the machine has."""

from dataclasses import dataclass
from typing import Literal

from service.errors import SettingsError

DeviceWish = Literal["auto", "gpu", "cpu"]
EngineName = Literal["auto", "savedmodel", "onnxruntime"]
PrecisionWish = Literal["auto", "float32", "int8"]


@dataclass(frozen=True)
class EngineWish:
    """Settings of an engine, as `EngineSettings` describes them. A 0 means all cores, or no limit."""

    engine: EngineName = "auto"
    device: DeviceWish = "auto"
    precision: PrecisionWish = "auto"
    threads: int = 0
    gpu_memory_limit_mb: int = 0

    @property
    def may_use_gpu(self) -> bool:
        """Whether a GPU would be used if there is one."""
        return self.device != "cpu" and self.engine != "onnxruntime" and self.precision != "int8"

    def check(self) -> None:
        """Raise `SettingsError` for values that contradict each other."""
        if self.engine == "onnxruntime" and self.device == "gpu":
            raise SettingsError("--engine onnxruntime computes on the CPU. Leave out --device gpu, or the engine.")
        if self.precision == "int8" and (self.engine == "savedmodel" or self.device == "gpu"):
            raise SettingsError("--precision int8 is for onnxruntime on the CPU. Leave out --engine and --device.")
