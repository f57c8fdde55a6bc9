"""Checkpoint of a training. One file is replaced after every epoch."""

import json
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from zipfile import ZIP_STORED, ZipFile, ZipInfo

import keras
import numpy as np
from numpy.typing import NDArray

from service.errors import TrainingError


@dataclass(frozen=True)
class Epoch:
    """Figures of one epoch. Losses are mean cross-entropies, accuracies shares in [0, 1], `images_per_s` training only.

    `validation_loss` and `validation_accuracy` are None without a validation.
    """

    epoch: int
    loss: float
    accuracy: float
    validation_loss: float | None
    validation_accuracy: float | None
    learning_rate: float
    seconds: float
    images_per_s: float


def seconds_per_epoch(history: Sequence[Epoch]) -> float:
    """Return the mean, in seconds. The first of several epochs does not count, as it also traces and warms up."""
    seconds = [epoch.seconds for epoch in history]
    counted = seconds[1:] or seconds
    return sum(counted) / len(counted)


Variables = Sequence[NDArray[Any]]


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """State of a training after an epoch.

    `state` are the variables of network and optimizer and the mean of weights. It is empty where the training is
    finished. `history` may leave out epochs only then. `best` are the weights to keep.
    """

    history: tuple[Epoch, ...]
    state: Variables
    best: Variables

    @property
    def num_done(self) -> int:
        """Number of epochs that are done."""
        return self.history[-1].epoch + 1 if self.history else 0


def read_variables(variables: Sequence[keras.Variable]) -> Variables:
    """Return copies of their values, in order."""
    return [np.array(keras.ops.convert_to_numpy(variable.value)) for variable in variables]


def assign_variables(variables: Sequence[keras.Variable], values: Variables) -> None:
    """Give each variable its value, in order."""
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint, whole or not at all. Raises `TrainingError` if it cannot be written."""
    arrays = {f"state_{i:04d}": value for i, value in enumerate(checkpoint.state)}
    arrays |= {f"best_{i:04d}": value for i, value in enumerate(checkpoint.best)}
    arrays["history"] = np.array(json.dumps([asdict(epoch) for epoch in checkpoint.history]))
    try:
        write_arrays(path, arrays)
    except OSError as error:
        raise TrainingError(f"the checkpoint could not be written to {path.parent}: {error.strerror}") from error


def load_checkpoint(path: Path) -> Checkpoint | None:
    """Return what `save_checkpoint` wrote, or None without a file. Raises as `read_arrays`."""
    arrays = read_arrays(path)
    if arrays is None:
        return None
    state, best = ([arrays[name] for name in sorted(arrays) if name.startswith(kind)] for kind in ("state_", "best_"))
    try:
        history = tuple(_read_epoch(row) for row in json.loads(str(arrays["history"])))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise unfit_file(path) from error
    numbers = [epoch.epoch for epoch in history]
    if numbers != (list(range(len(numbers))) if state else sorted(set(numbers))):
        raise unfit_file(path)
    return Checkpoint(history, state, best)


def _read_epoch(row: Mapping[str, Any]) -> Epoch:
    epoch = Epoch(**row)
    needed = (epoch.loss, epoch.accuracy, epoch.learning_rate, epoch.seconds, epoch.images_per_s)
    is_sound = type(epoch.epoch) is int and {type(value) for value in row.values()} <= {int, float, type(None)}
    if not is_sound or None in needed or (epoch.validation_loss is None) != (epoch.validation_accuracy is None):
        raise ValueError(f"these are no figures of an epoch: {row}")
    return epoch


def unfit_file(path: Path) -> TrainingError:
    """Return the error for a file in a run folder that another program wrote or damaged."""
    text = f"{path} is damaged, or no file of this training. Remove it, and the same command makes it anew."
    return TrainingError(text)


def read_arrays(path: Path) -> dict[str, NDArray[Any]] | None:
    """Return the arrays that `write_arrays` wrote, or None without a file. They take no more memory than the file.

    Raises:
        TrainingError: The file cannot be read, or holds anything else.
    """
    try:
        # Opened here, since `zipfile` leaves a file open that it cannot read.
        with path.open("rb") as stream, ZipFile(stream) as archive:
            return {info.filename.removesuffix(".npy"): _read_array(archive, info) for info in archive.infolist()}
    except FileNotFoundError:
        return None
    except OSError as error:
        raise TrainingError(
            f"{path} cannot be read: {error.strerror or error}. Check its rights, or remove it to begin anew."
        ) from error
    except MemoryError:
        raise
    except Exception as error:  # the libraries raise whatever a damaged byte leads them to
        raise unfit_file(path) from error


def _read_array(archive: ZipFile, info: ZipInfo) -> NDArray[Any]:
    if info.compress_type != ZIP_STORED:
        raise ValueError(f"{info.filename} is compressed")
    with archive.open(info) as stream:
        version = np.lib.format.read_magic(stream)
        read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, is_fortran, dtype = read_header(stream)
        return np.frombuffer(stream.read(), dtype).reshape(shape, order="F" if is_fortran else "C")


def are_alike(values: Variables, others: Variables) -> bool:
    """Return whether arrays have the same shapes and types, one by one."""
    return [(value.shape, value.dtype) for value in values] == [(other.shape, other.dtype) for other in others]


def write_arrays(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write or replace an .npz file, whole or not at all. Raises `OSError`."""
    draft = path.with_suffix(".writing")
    try:
        with draft.open("wb") as file:
            np.savez(file, allow_pickle=False, **arrays)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    except OSError:
        with suppress(OSError):
            draft.unlink()
        raise
