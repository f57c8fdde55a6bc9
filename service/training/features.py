"""Features of photographs, and the files that keep them in a run folder."""

from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np

from service.data.stored import Photographs
from service.errors import TrainingError
from service.training.checkpoint import read_arrays, unfit_file, write_arrays
from service.training.fit import predict
from service.training.targets import Float32

NUM_VIEWS = 2
"""A photograph's square and its mirror image."""

_PIECE, _BATCH_SIZE = 256, 32


def extract_features(
    model: keras.Model, squares: Photographs, folder: Path, progress: Callable[[int], None]
) -> Float32:
    """Return features of N squares and of their mirror images, float32 (2, N, F).

    Each 256 photographs have a file, which is read if it is there. So little is lost when the training is killed.

    Args:
        model: Model from uint8 (N, size, size, 3) to {"features": float32 (N, F)}.
        squares: N squares, each uint8 (size, size, 3). Memory holds 256 of them at a time.
        folder: Folder for this model and these photographs alone. It is made if it is missing.
        progress: Function that gets the number of squares that are done.

    Raises:
        TrainingError: A file cannot be written or read, or is of another training.
    """
    pieces = []
    for start in range(0, len(squares), _PIECE):
        num_squares = min(_PIECE, len(squares) - start)
        path = folder / f"{start:07d}.npz"
        shape = NUM_VIEWS, num_squares, model.output["features"].shape[-1]
        features = _load(path, shape)
        if features is None:
            features, piece = np.empty(shape, np.float32), np.asarray(squares[start : start + num_squares])
            for begin in range(0, num_squares, _BATCH_SIZE):
                some = slice(begin, begin + _BATCH_SIZE)
                for view, images in enumerate((piece[some], piece[some, :, ::-1])):
                    features[view, some] = predict(model, images, _BATCH_SIZE)["features"]
                progress(start + min(begin + _BATCH_SIZE, num_squares))
            _save(path, features)
        progress(start + num_squares)
        pieces.append(features)
    return np.concatenate(pieces, axis=1)


def _load(path: Path, shape: tuple[int, ...]) -> Float32 | None:
    arrays = read_arrays(path)
    if arrays is None:
        return None
    features = arrays.get("features")
    if features is None or features.shape != shape or features.dtype != np.float32:
        raise unfit_file(path)
    return features


def _save(path: Path, features: Float32) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_arrays(path, {"features": features})
    except OSError as error:
        raise TrainingError(f"the features could not be written to {path}: {error.strerror}") from error
