"""Protocol of the engines, which turn a batch of pixels into scores, and the check of their answers."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import repeat
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from service.errors import EngineFailed, OutOfMemory, ServiceError, is_out_of_memory
from service.imaging.pixels import Pixels
from service.store.layout import Precision

_TOLERANCE = 1e-5  # of a probability: float32 sums reorder with the batch size
_RELATIVE_TOLERANCE = 1e-3  # of an energy or a distance, which have no bounds. Below 1 it is absolute

Probabilities = NDArray[np.float32]
"""float32, shape (num_classes,) or (N, num_classes); each row sums to 1 within 1e-5, ordered like `class_names`."""


@dataclass(frozen=True, eq=False)
class Scores:
    """Answer of a network to N images, row by row.

    `probabilities` are float32 (N, num_classes). `energy`, float32 (N,), is the negative logarithm of the summed
    exponentials of the logits, before the temperature. `distance`, float32 (N,), is that from the training photographs.
    Both are low for images like those. None means that the network has no such output.

    Source: Liu et al. (2020), "Energy-based Out-of-distribution Detection", section 3.1.
    """

    probabilities: Probabilities
    energy: NDArray[np.float32] | None = None
    distance: NDArray[np.float32] | None = None

    def first(self, num_images: int) -> "Scores":
        """Return the scores of the first images."""
        energy, distance = (None if column is None else column[:num_images] for column in (self.energy, self.distance))
        return Scores(self.probabilities[:num_images], energy, distance)

    def rows(self) -> Iterator[tuple[Probabilities, float | None, float | None]]:
        """Yield probabilities, energy and distance of each image."""
        energy, distance = (repeat(None) if it is None else it.tolist() for it in (self.energy, self.distance))
        yield from zip(self.probabilities, energy, distance, strict=False)

    def are_finite(self, num_images: int, num_classes: int) -> bool:
        """Return whether all are finite numbers, and of the shapes for so many images and classes."""
        have_shape = self.probabilities.shape == (num_images, num_classes)
        are_finite = have_shape and bool(np.isfinite(self.probabilities).all())
        return are_finite and _is_column(self.energy, num_images) and _is_column(self.distance, num_images)


def join_scores(pieces: Sequence[Scores]) -> Scores:
    """Join the scores of a batch's pieces. All have the same columns."""
    if len(pieces) == 1:
        return pieces[0]
    energies, distances = [piece.energy for piece in pieces], [piece.distance for piece in pieces]
    return Scores(np.concatenate([piece.probabilities for piece in pieces]), _join(energies), _join(distances))


def _is_column(column: NDArray[np.float32] | None, num_images: int) -> bool:
    return column is None or (column.shape == (num_images,) and bool(np.isfinite(column).all()))


def _join(columns: Sequence[NDArray[np.float32] | None]) -> NDArray[np.float32] | None:
    there = [column for column in columns if column is not None]
    return np.concatenate(there) if there else None


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

    def run(self, images: Pixels) -> Scores:
        """Score a batch.

        `images` are uint8, shape (N, image_size, image_size, 3), RGB, N >= 1. Row i of the answer belongs to image i,
        whatever the rest of the batch. Raises `EngineFailed`, or `OutOfMemory`.
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


def _check(together: Scores, alone: Scores, shape: tuple[int, int], device: str) -> None:
    """Check one answer. NaN fails each comparison."""
    where = f"at batch size {shape[0]} on the {device}"
    if not together.are_finite(*shape) or not alone.are_finite(1, shape[1]):
        raise EngineFailed(f"The network's answer {where} is no table of finite numbers. Export it again.")
    probabilities = together.probabilities
    if not np.abs(probabilities.sum(axis=1) - 1).max() <= _TOLERANCE or probabilities.min() < 0:
        raise EngineFailed(f"The network's answer {where} is no probability distribution. Export it again.")
    compared = (
        ("probabilities", probabilities, alone.probabilities, _TOLERANCE),
        ("energy values", together.energy, alone.energy, _RELATIVE_TOLERANCE),
        ("distance values", together.distance, alone.distance, _RELATIVE_TOLERANCE),
    )
    for name, of_batch, of_one, tolerance in compared:
        if of_batch is None or of_one is None:
            continue
        difference = (np.abs(of_batch[-1] - of_one[0]) / np.maximum(1, np.abs(of_one[0]))).max()
        if not difference <= tolerance:
            raise EngineFailed(
                f"An image's {name} {where} differ by {difference:.2g} from those it gets alone. "
                f"At most {tolerance:.0e} is allowed. Export it again."
            )
