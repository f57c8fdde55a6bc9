"""All that an interrupted training needs to go on as if nothing had happened: one file, replaced every epoch."""

import json
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

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
    """History, state and best weights as `save_checkpoint` wrote them; None where there is no checkpoint yet.

    Raises:
        TrainingError: the file is not a checkpoint; says to remove it.
    """
    try:
        # Opened here: `np.load` leaves a file open that it cannot read.
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            history = [Epoch(**row) for row in json.loads(str(file["history"]))]
            state = [file[name] for name in sorted(file.files) if name.startswith("state_")]
            best = [file[name] for name in sorted(file.files) if name.startswith("best_")]
    except FileNotFoundError:
        return None
    except (OSError, EOFError, ValueError, KeyError, TypeError, BadZipFile) as error:
        raise TrainingError(f"{path} is no checkpoint of this program: remove it to begin anew") from error
    return history, state, best


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
