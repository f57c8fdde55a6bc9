"""The Engine protocol: whatever turns a batch of pixels into probabilities."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from service.errors import EngineFailed, InvalidVersion, OutOfMemory, ServiceError, is_out_of_memory
from service.imaging.pixels import Pixels

Probabilities = NDArray[np.float32]
"""float32, shape (num_classes,) or (N, num_classes); each row sums to 1 within 1e-5, ordered like `class_names`."""


@dataclass(frozen=True)
class EngineInfo:
    """What runs the network, where, and why it was chosen.

    `engine` is "savedmodel" or "onnxruntime", `device` as read from a result tensor ("cpu" or "gpu"), `precision`
    "float32" or "int8", `reason` one sentence for the log and for `GET /models`; `warning`: what was found that should
    not be so, such as a GPU that stays unused, with the remedy.
    """

    engine: str
    device: str
    precision: str
    reason: str
    warning: str = ""


class Engine(Protocol):
    """A loaded network. `run` may be called from several threads at once."""

    info: EngineInfo
    """What runs the network, where, and why; final once `warm_up` has returned."""
    num_classes: int
    """How many probabilities a row has."""
    image_size: int
    """Pixels per side of the squares that it takes."""
    num_lanes: int
    """How many calls of `run` at a time use the machine best; more would only wait for each other."""
    lane_cores: tuple[int, ...]
    """By number, the cores that the threads which call `run` should keep to, one each; none: they run anywhere."""
    lanes_decode: bool
    """Whether the threads that call `run` should decode as well; else images are decoded on others, ahead of it."""
    max_batch_size: int
    """Images in one call beyond which more only wait for each other: what is left over goes to the next call."""
    min_queue_size: int
    """Images that must be able to wait, or to be decoded ahead, lest a lane lacks work under any load."""

    def warm_up(self, max_batch_size: int) -> None:
        """Run what traffic in batches up to `max_batch_size` can meet, so that no visitor pays for a first call.

        Raises:
            EngineFailed: a call raised, or answered with something that is no probability distribution.
            OutOfMemory: a call found too little memory.
        """

    def run(self, images: Pixels, *, is_alone: bool = False) -> Probabilities:
        """Score a batch.

        Args:
            images: uint8, shape (N, image_size, image_size, 3), RGB, N >= 1.
            is_alone: whether no other image is in a lane or waits for one, so that this call may have all cores.

        Returns:
            float32, shape (N, num_classes); row i belongs to image i, whatever its company.

        Raises:
            EngineFailed: the runtime raised.
            OutOfMemory: the runtime found too little memory.
        """

    def close(self) -> None:
        """Give the memory back; the engine is not used afterwards."""


def check_shapes(engine: Engine, version: int, num_classes: int, image_size: int) -> None:
    """Raises `InvalidVersion` where the network is not what the metadata of its version say."""
    if engine.num_classes != num_classes:
        raise InvalidVersion(
            f"the network of version {version} has {engine.num_classes} classes, its metadata names {num_classes}: "
            "export it again"
        )
    if engine.image_size != image_size:
        raise InvalidVersion(
            f"the network of version {version} takes squares of {engine.image_size} pixels, its metadata says "
            f"{image_size}: export it again"
        )


def failed_run(num_images: int, cause: BaseException) -> ServiceError:
    """Return what an engine call comes to when `cause` was raised in it, or no thread could be had for it."""
    if is_out_of_memory(cause):
        return OutOfMemory(
            f"There is not enough memory to score a batch of {num_images}. Send the image again later, or free memory."
        )
    return EngineFailed(f"the engine could not score {num_images} images: {cause!r}")


def no_memory_to_load(version: str) -> OutOfMemory:
    """Return what a constructor raises when the runtime finds too little memory for a network."""
    return OutOfMemory(f"there is not enough memory to load version {version}: free memory, or raise the limit")
