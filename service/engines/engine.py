"""Protocol of the engines, which turn a batch of pixels into probabilities, and the check of their answers."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from service.errors import EngineFailed, OutOfMemory, ServiceError, is_out_of_memory
from service.imaging.pixels import Pixels
from service.store.layout import Precision

_TOLERANCE = 1e-5  # float32 sums reorder with the batch size

Probabilities = NDArray[np.float32]
"""float32, shape (num_classes,) or (N, num_classes); each row sums to 1 within 1e-5, ordered like `class_names`."""


@dataclass(frozen=True)
class EngineInfo:
    """Engine, device and precision, with the reason for them in one sentence."""

    engine: str  # savedmodel or onnxruntime
    device: Literal["gpu", "cpu"]  # once it has run, that of a result tensor
    precision: Precision
    reason: str
    warning: str = ""  # an obstacle with its remedy, such as a GPU that stays unused

    def to_dict(self) -> dict[str, str]:
        """Return the fields but for the warning."""
        return {"engine": self.engine, "device": self.device, "precision": self.precision, "reason": self.reason}


class Engine(Protocol):
    """Loaded network. `run` may be called from several threads at once."""

    info: EngineInfo  # final once `warm_up` has returned
    num_classes: int  # number of probabilities in a row
    image_size: int  # pixels per side of an input square
    lanes_decode: bool  # the lane should decode as well. Otherwise other threads decode ahead
    max_batch_size: int  # largest useful batch. A larger one raises latency and not throughput
    min_queue_size: int  # number of images that must be able to wait, so that the lane never lacks work under load

    def warm_up(self, max_batch_size: int) -> None:
        """Run all batch sizes up to `max_batch_size` that traffic can meet, before the first request.

        Raises as `run`, and `EngineFailed` for an answer that is no probability distribution.
        """

    def run(self, images: Pixels) -> Probabilities:
        """Score a batch.

        `images` are uint8, shape (N, image_size, image_size, 3), RGB, N >= 1. The answer is float32, shape
        (N, num_classes). Row i belongs to image i, whatever the rest of the batch. Raises `EngineFailed`, or
        `OutOfMemory`.
        """

    def close(self) -> None:
        """Give the memory back. The engine is not used afterwards."""


def failed_run(num_images: int, cause: BaseException) -> ServiceError:
    """Return the error for an engine call in which `cause` was raised."""
    if is_out_of_memory(cause):
        return OutOfMemory(
            f"There is not enough memory to score a batch of {num_images}. Send the image again later, or free memory."
        )
    return EngineFailed(f"The engine could not score {num_images} images. It raised {cause!r}.")


def no_memory_to_load(version: str) -> OutOfMemory:
    """Return the error for a network that does not fit into memory."""
    return OutOfMemory(f"There is not enough memory to load version {version}. Free memory, or raise the limit.")


def run_and_check(engine: Engine, batch_sizes: Sequence[int]) -> None:
    """Run each batch size on noise, and check the answers.

    Raises as `Engine.warm_up`, and `EngineFailed` for an answer that depends on the rest of its batch.
    """
    shape = (max(batch_sizes), engine.image_size, engine.image_size, 3)
    images = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    for size in batch_sizes:
        together, alone = engine.run(images[:size]), engine.run(images[size - 1 : size])
        _check(together, alone, (size, engine.num_classes), engine.info.device)


def _check(together: Probabilities, alone: Probabilities, shape: tuple[int, int], device: str) -> None:
    """Check one answer. NaN fails each comparison."""
    where = f"at batch size {shape[0]} on the {device}"
    if together.shape != shape or not np.isfinite(together).all():
        raise EngineFailed(f"The network's answer {where} is no table of finite numbers. Export it again.")
    if not np.abs(together.sum(axis=1) - 1).max() <= _TOLERANCE or together.min() < 0:
        raise EngineFailed(f"The network's answer {where} is no probability distribution. Export it again.")
    difference = np.abs(together[-1] - alone[0]).max()
    if not difference <= _TOLERANCE:
        raise EngineFailed(
            f"An image's probabilities {where} differ by {difference:.2g} from those it gets alone. "
            f"At most {_TOLERANCE:.0e} is allowed. Export it again."
        )
