"""All that an interrupted training needs to go on as if nothing had happened: one file, replaced every epoch."""

import json
import math
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
    """What one epoch gave: losses are mean cross-entropies, rates shares in [0, 1], `images_per_s` training only.

    `validation_loss` and `validation_accuracy` are None where nothing was kept back to validate on.
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
    """The mean, in seconds. The first epoch also traces and warms up; where there are others, it does not count."""
    seconds = [epoch.seconds for epoch in history]
    counted = seconds[1:] or seconds
    return sum(counted) / len(counted)


Variables = Sequence[NDArray[Any]]


def read_variables(variables: Sequence[keras.Variable]) -> Variables:
    """Copies of their values, in order."""
    return [np.array(keras.ops.convert_to_numpy(variable.value)) for variable in variables]


def assign_variables(variables: Sequence[keras.Variable], values: Variables) -> None:
    """Give each variable its value, in order."""
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)


def save_checkpoint(path: Path, history: Sequence[Epoch], state: Variables, best: Variables) -> None:
    """Write history, training state and best weights to `path` in one atomic step.

    Raises:
        TrainingError: the disk is full or the folder cannot be written.
    """
    arrays = {f"state_{i:04d}": value for i, value in enumerate(state)}
    arrays |= {f"best_{i:04d}": value for i, value in enumerate(best)}
    arrays["history"] = np.array(json.dumps([asdict(epoch) for epoch in history]))
    try:
        write_arrays(path, arrays)
    except OSError as error:
        raise TrainingError(f"the checkpoint could not be written to {path.parent}: {error.strerror}") from error


def load_checkpoint(path: Path) -> tuple[list[Epoch], Variables, Variables] | None:
    """Return history, state and best weights as `save_checkpoint` wrote them, or None without a checkpoint.

    Raises:
        TrainingError: The file cannot be read or is no checkpoint. The message says to remove it.
    """
    arrays = read_arrays(path)
    if arrays is None:
        return None
    try:
        history = [_read_epoch(number, row) for number, row in enumerate(json.loads(str(arrays["history"])))]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise unfit_file(path) from error
    state, best = (
        [arrays[name] for name in sorted(arrays) if name.startswith(prefix)] for prefix in ("state_", "best_")
    )
    return history, state, best


def _read_epoch(number: int, row: Mapping[str, Any]) -> Epoch:
    values = dict(row)
    if values["epoch"] != number or {type(value) for value in values.values()} - {int, float, type(None)}:
        raise ValueError(f"this is not epoch {number}")
    epoch = Epoch(**values)
    needed = (epoch.loss, epoch.accuracy, epoch.learning_rate, epoch.seconds, epoch.images_per_s)
    if None in needed or (epoch.validation_loss is None) != (epoch.validation_accuracy is None):
        raise ValueError(f"figures of epoch {number} are missing")
    return epoch


def unfit_file(path: Path) -> TrainingError:
    """Return the error for a file in a run folder that another program wrote or damaged."""
    return TrainingError(
        f"{path} is damaged, or no file of this training: remove it, and the same command makes it anew"
    )


def read_arrays(path: Path) -> dict[str, NDArray[Any]] | None:
    """Return the arrays that `write_arrays` wrote, or None where there is no file.

    No more memory is taken than the file has bytes.

    Raises:
        TrainingError: The file cannot be read, or holds anything else. The message says what to do.
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
        shape, _, dtype = read_header(stream)
        if math.prod(shape) * dtype.itemsize != info.file_size - stream.tell():
            raise ValueError(f"{info.filename} has another length than its header says")
    with archive.open(info) as stream:
        array: NDArray[Any] = np.lib.format.read_array(stream, allow_pickle=False)
    return array


def are_validated(history: Sequence[Epoch], expected: bool) -> bool:
    """Return whether each epoch was validated, or none where `expected` is false."""
    return all((epoch.validation_loss is not None) == expected for epoch in history)


def describe_resumed(num_done: int, num_epochs: int, folder: Path) -> str:
    """Say how many epochs an earlier start has left in the run folder."""
    left = f"going on with epoch {num_done + 1}" if num_done < num_epochs else "nothing of this network is left to do"
    return f"{num_done} of {num_epochs} epochs are in {folder} from before: {left}."


def are_alike(values: Variables, others: Variables) -> bool:
    """Return whether arrays have the same shapes and types, one by one."""
    return [(value.shape, value.dtype) for value in values] == [(other.shape, other.dtype) for other in others]


def write_arrays(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write an .npz file, or replace the one that is there: whole, or not at all. Raises `OSError`."""
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
