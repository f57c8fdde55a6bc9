"""Scores of photographs, with the decoder, the resize rule and the engine of serving."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.data.check import has_digest
from service.engines.engine import Engine, Probabilities, Scores
from service.errors import DatasetError, ImageError, InvalidImage, OutOfMemory
from service.files import UnfitFile, read_bounded
from service.imaging.decode import decode_image
from service.imaging.limits import ImageLimits, ResizeRule
from service.imaging.pixels import Decoded, Pixels
from service.imaging.resize import resize
from service.machine import count_cores

BATCH_SIZE = 32
_NO_DIGESTS: Mapping[Path, str] = {}


@dataclass(frozen=True, eq=False)
class ScoredImage:
    """Probabilities of one photograph, float32, shape (num_classes,), or its error.

    An energy or a distance of None is no output of the network. `is_learned` tells whether the version has learned from
    the photograph. None means that this is unknown.
    """

    path: Path
    probabilities: Probabilities | None
    error: ImageError | None
    energy: float | None = None
    distance: float | None = None
    is_learned: bool | None = None


@dataclass(frozen=True, eq=False)
class Answers:
    """Photographs with `probabilities`, float32, shape (N, num_classes), and true `class_indices`, shape (N,)."""

    paths: tuple[Path, ...]
    probabilities: Probabilities
    class_indices: NDArray[np.integer[Any]]


def score_each(
    engine: Engine,
    paths: Sequence[Path],
    rule: ResizeRule,
    limits: ImageLimits,
    *,
    pixels_digests: Mapping[Path, str] = _NO_DIGESTS,
    is_learned: Callable[[Decoded], bool] | None = None,
    decode_threads: int = 0,
    read: Callable[[Path], bytes] | None = None,
) -> Iterator[ScoredImage]:
    """Score photographs in order. A photograph that cannot be scored yields its error.

    The next batch is decoded while the engine runs one. Memory holds at most two batches of squares, and one full
    image per decoding thread. 0 threads means one more than cores. A photograph with one of `pixels_digests` is refused
    unless it has that (`has_digest`). `is_learned` is asked about each decoded photograph, on a decoding thread. `read`
    returns the bytes of a path, there, too. None means `read_photograph`. Raises `EngineFailed`, `OutOfMemory`, and
    what `read` raises besides an `ImageError`. Then no photograph is at fault.
    """

    def load(path: Path) -> tuple[Pixels, bool | None]:
        try:
            data = read(path) if read else read_photograph(path, limits)
            image = decode_image(data, limits)
            if path in pixels_digests and not has_digest(image, pixels_digests[path]):
                raise InvalidImage("The photograph has changed since the split was made. Put the original back.")
            return resize(image, rule), is_learned(image) if is_learned else None
        except OutOfMemory as error:
            raise OutOfMemory(f"{path}: {error}") from error

    executor = ThreadPoolExecutor(decode_threads or count_cores() + 1, thread_name_prefix="decode")
    try:
        decoding: list[tuple[Path, Future[tuple[Pixels, bool | None]]]] = []
        for start in range(0, len(paths), BATCH_SIZE):
            batch = decoding
            decoding = [(path, executor.submit(load, path)) for path in paths[start : start + BATCH_SIZE]]
            yield from _score_batch(engine, batch)
        yield from _score_batch(engine, decoding)
    finally:
        executor.shutdown(cancel_futures=True)


def score_photographs(engine: Engine, paths: Sequence[Path], rule: ResizeRule, limits: ImageLimits) -> Scores:
    """Return the scores of N photographs. Row i belongs to `paths[i]`.

    Raises `DatasetError` with the first photograph that cannot be scored, and `EngineFailed`.
    """
    probabilities = np.empty((len(paths), engine.num_classes), np.float32)
    energies: list[float | None] = []
    distances: list[float | None] = []
    for index, scored in enumerate(score_each(engine, paths, rule, limits)):
        if scored.error is not None:
            raise DatasetError(f"{scored.path} cannot be scored. {scored.error}") from scored.error
        probabilities[index] = scored.probabilities
        energies.append(scored.energy)
        distances.append(scored.distance)
    return Scores(probabilities, _to_column(energies), _to_column(distances))


def read_photograph(path: Path, limits: ImageLimits) -> bytes:
    """Read a file, at most one byte more than `max_image_bytes`. Raises `InvalidImage` if it cannot be read."""
    try:
        return read_bounded(path, limits.max_image_bytes)
    except UnfitFile as error:
        raise InvalidImage("It is not a file. Give photographs.") from error
    except OSError as error:
        raise InvalidImage(f"It cannot be read ({error.strerror}). Check the path and its rights.") from error


def _to_column(values: Sequence[float | None]) -> NDArray[np.float32] | None:
    there = [value for value in values if value is not None]
    return np.array(there, np.float32) if len(there) == len(values) else None


def _score_batch(
    engine: Engine, decoding: Sequence[tuple[Path, Future[tuple[Pixels, bool | None]]]]
) -> Iterator[ScoredImage]:
    errors = [future.exception() for _, future in decoding]
    squares = [future.result()[0] for (_, future), error in zip(decoding, errors, strict=True) if error is None]
    rows = iter(engine.run(np.stack(squares)).rows() if squares else ())
    for (path, future), error in zip(decoding, errors, strict=True):
        if error is None:
            probabilities, energy, distance = next(rows)
            yield ScoredImage(path, probabilities, None, energy, distance, future.result()[1])
        elif isinstance(error, ImageError):
            yield ScoredImage(path, None, error)
        else:
            raise error
