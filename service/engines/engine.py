"""Protocol of the engines, which turn a batch of pixels into probabilities."""

from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from service.errors import EngineFailed, OutOfMemory, ServiceError, is_out_of_memory
from service.imaging.pixels import Pixels
from service.store.layout import Precision

Probabilities = NDArray[np.float32]
"""float32, shape (num_classes,) or (N, num_classes); each row sums to 1 within 1e-5, ordered like `class_names`."""


@dataclass(frozen=True)
class EngineInfo:
    """Engine, device and precision, with the reason for them in one sentence.

    The engine is "savedmodel" or "onnxruntime". Once it has run, `device` is that of a result tensor. `warning` is an
    obstacle with its remedy, such as a GPU that stays unused. It is empty if there is none.
    """

    engine: str
    device: Literal["gpu", "cpu"]
    precision: Precision
    reason: str
    warning: str = ""

    def to_dict(self) -> dict[str, str]:
        """Return the fields but for the warning."""
        return {"engine": self.engine, "device": self.device, "precision": self.precision, "reason": self.reason}


class Engine(Protocol):
    """Loaded network. `run` may be called from several threads at once."""

    info: EngineInfo  # final once `warm_up` has returned
    num_classes: int  # number of probabilities in a row
    image_size: int  # pixels per side of an input square
    num_lanes: int  # number of parallel calls of `run` that use the machine best
    lane_cores: tuple[int, ...]  # numbers of the cores for the threads that call `run`, one each. Empty means any core
    lanes_decode: bool  # threads that call `run` should decode as well. Otherwise others decode ahead
    max_batch_size: int  # largest useful batch. A larger one raises latency and not throughput
    min_queue_size: int  # number of images that must be able to wait, so that no lane lacks work under load

    def warm_up(self, max_batch_size: int) -> None:
        """Run all batch sizes up to `max_batch_size` that traffic can meet, before the first request.

        Raises:
            EngineFailed: A call raised, or its answer is no probability distribution.
            OutOfMemory: A call found too little memory.
        """

    def run(self, images: Pixels, *, is_alone: bool = False) -> Probabilities:
        """Score a batch.

        Args:
            images: uint8, shape (N, image_size, image_size, 3), RGB, N >= 1.
            is_alone: No other image is in a lane or waits for one. The call may use all cores.

        Returns:
            float32, shape (N, num_classes). Row i belongs to image i, whatever the rest of the batch.

        Raises:
            EngineFailed: The runtime raised.
            OutOfMemory: The runtime found too little memory.
        """

    def close(self) -> None:
        """Give the memory back. The engine is not used afterwards."""


def failed_run(num_images: int, cause: BaseException) -> ServiceError:
    """Return the error for an engine call in which `cause` was raised."""
    if is_out_of_memory(cause):
        return OutOfMemory(
            f"There is not enough memory to score a batch of {num_images}. Send the image again later, or free memory."
        )
    return EngineFailed(f"the engine could not score {num_images} images: {cause!r}")


def no_memory_to_load(version: str) -> OutOfMemory:
    """Return the error for a network that does not fit into memory."""
    return OutOfMemory(f"there is not enough memory to load version {version}: free memory, or raise the limit")
