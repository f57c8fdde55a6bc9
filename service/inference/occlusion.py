"""Explanations by occlusion: how far a label's probability drops when a cell of the image is covered.

Source: Zeiler and Fergus (2014), "Visualizing and Understanding Convolutional Networks", section 4.2.
"""

import asyncio
import difflib
import functools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from service.engines.engine import Probabilities
from service.engines.open_version import ServedVersion
from service.errors import DeadlineExceeded, InvalidParameter
from service.imaging.pixels import Pixels
from service.inference.admission import Admission
from service.inference.batcher import MicroBatcher, Row
from service.inference.decoders import Decoders
from service.inference.explanations import ExplanationLimit
from service.inference.live_model import LiveModel
from service.inference.predictor import Classified, Timings

GRID_SIZE = 7
"""Cells of the grid per side."""

MAX_CALL_SIZE = 4
"""Most images of an explanation in one engine call. A prediction waits at most for one call."""

# Beside predictions an explanation takes 2 % of the lane's time, one image a call. So it delays too few of them to move
# the 99th percentile (`benchmarks/reliability`, explanations).
CALM_AFTER_S = 1.0
_REST_CALLS, _MAX_REST_S = 50, 0.4

_MAX_COMPARED = 100  # letters of an unknown label
_TOO_LATE = "The deadline passed before the explanation was done. Allow more time, or send it again under less load."


@dataclass(frozen=True, eq=False)
class Explained:
    """What the probability of a label rests on.

    Attributes:
        classified: Row of the image, and its stages. `infer_s` is the sum of all calls.
        class_index: Of the label.
        square: What the network sees: uint8, shape (image_size, image_size, 3), sRGB.
        drops: float32, shape (7, 7), rows from the top. The drop of the label's probability when that cell is covered.
            It is negative where the probability rises.
    """

    classified: Classified
    class_index: int
    square: Pixels
    drops: NDArray[np.float32]


class Explainer:
    """Explanations of one process. Its images go to the engine when no prediction is here."""

    def __init__(
        self,
        live_model: LiveModel,
        batcher: MicroBatcher,
        decoders: Decoders,
        admission: Admission,
        limit: ExplanationLimit,
    ) -> None:
        self._live_model = live_model
        self._batcher = batcher
        self._decoders = decoders
        self._admission = admission
        self._limit = limit
        self._calling = asyncio.Lock()

    def check(self, label: str | None) -> None:
        """Refuse what need not be read. Raises `QueueFull`, `NotReady`, and `InvalidParameter` for an unknown label."""
        self._limit.check_not_full()
        find_class(label, self._live_model.require().metadata.class_names)

    async def explain(self, image: bytes, label: str | None, deadline: float) -> Explained:
        """Explain the score of one image by the version in use.

        All its images go to one version, which stays open meanwhile.

        Args:
            image: An image file.
            label: A class of the version. None means the most probable one.
            deadline: Event loop time in seconds.

        Raises:
            NotReady: No model can answer.
            QueueFull: As many explanations as may are here already.
            InvalidParameter: The version has no such label.
            ImageError: The image is at fault.
            DeadlineExceeded: The deadline passed first.
            EngineFailed: An engine call raised.
            OutOfMemory: There is not enough memory.
        """
        version = self._live_model.require()
        class_index = find_class(label, version.metadata.class_names)
        with version.in_use(), self._limit.place():
            arrived_at = time.perf_counter()
            try:
                async with asyncio.timeout_at(deadline):
                    decoding = self._decoders.decode(image, None, version.rule, deadline)
                    del image  # up to 20 MiB: only pixels wait
                    square, decode_s = await decoding
                    async with self._limit.turn():
                        rows, infer_s = await self._score(list_images(square), version, deadline)
            except TimeoutError:
                raise DeadlineExceeded(_TOO_LATE) from None
            ended_at = time.perf_counter()
            timings = Timings(decode_s, max(0.0, ended_at - arrived_at - decode_s - infer_s), infer_s, ended_at)
        whole = rows[0]
        classified = Classified(version, whole.probabilities, timings, whole.energy, whole.distance)
        if class_index is None:
            class_index = int(whole.probabilities.argmax())
        return Explained(
            classified, class_index, square, measure_drops([row.probabilities for row in rows], class_index)
        )

    async def _score(
        self, images: Sequence[Callable[[], Pixels]], version: ServedVersion, deadline: float
    ) -> tuple[list[Row], float]:
        """Return the images' rows, and the seconds of all engine calls."""
        rows: list[Row] = []
        infer_s = 0.0
        while len(rows) < len(images):
            async with self._calling:  # two explanations would make one call together
                await self._admission.wait_empty()
                is_calm = self._admission.quiet_s() >= CALM_AFTER_S
                call = images[len(rows) :][: MAX_CALL_SIZE if is_calm else 1]
                rows += await self._batcher.submit_background(call, version, deadline)
            infer_s += rows[-1].infer_s
            if not is_calm:
                await asyncio.sleep(min(_REST_CALLS * rows[-1].infer_s, _MAX_REST_S))
        return rows, infer_s


def find_class(label: str | None, class_names: Sequence[str]) -> int | None:
    """Return the index of a label, or None for None. Raises `InvalidParameter` with the nearest label."""
    if label is None or label in class_names:
        return None if label is None else class_names.index(label)
    nearest = difflib.get_close_matches(label[:_MAX_COMPARED], class_names, n=1, cutoff=0)[0]
    raise InvalidParameter(
        f"label is {label[:_MAX_COMPARED]!r}. This model has no such class. The nearest is {nearest!r}. Write that, or "
        "leave label out."
    )


def list_images(square: Pixels) -> list[Callable[[], Pixels]]:
    """List functions that make the images to score: the square itself, then with each cell covered, row by row."""
    colour = square.mean(axis=(0, 1)).round().astype(np.uint8)
    cells = ((row, column) for row in range(GRID_SIZE) for column in range(GRID_SIZE))
    return [lambda: square, *(functools.partial(cover_cell, square, *cell, colour) for cell in cells)]


def cover_cell(square: Pixels, row: int, column: int, colour: NDArray[np.uint8]) -> Pixels:
    """Return a copy of a square whose cell of that row and column has one colour: uint8, shape (3,)."""
    edges = [number * len(square) // GRID_SIZE for number in range(GRID_SIZE + 1)]
    covered = square.copy()
    covered[edges[row] : edges[row + 1], edges[column] : edges[column + 1]] = colour
    return covered


def measure_drops(rows: Sequence[Probabilities], class_index: int) -> NDArray[np.float32]:
    """Return the drops of one class, shape (7, 7), from the rows of `list_images`."""
    probabilities = np.stack(rows)[:, class_index]
    drops: NDArray[np.float32] = probabilities[0] - probabilities[1:]
    return drops.reshape(GRID_SIZE, GRID_SIZE)
