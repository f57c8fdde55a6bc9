"""Trainings of a folder of runs, by the files that they leave. Nothing of Keras is imported."""

import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from service.errors import TrainingError
from service.files import read_regular

_MAX_BYTES = 64 * 1024 * 1024  # of a JSON file. The split of 100,000 photographs takes 20 MB
_BROKEN = (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, EOFError)


@dataclass(frozen=True)
class RunSummary:
    """Figures of one training. What no file tells is None.

    Attributes:
        run: Name of its folder.
        model, version: What it published. An unfinished training has published nothing, as far as its folder tells.
        recipe: Name of its recipe.
        num_photographs: Number of photographs in all parts of the split.
        num_epochs: Number of epochs that are done.
        accuracy, accuracy_low, accuracy_high: Share of the test part that is right, and its 95 % Wilson interval.
        seconds: Time of all epochs together, in seconds.
        is_finished: Whether nothing of it is left to do.
    """

    run: str
    model: str | None
    version: int | None
    recipe: str | None
    num_photographs: int | None
    num_epochs: int | None
    accuracy: float | None
    accuracy_low: float | None
    accuracy_high: float | None
    seconds: float | None
    is_finished: bool


def list_runs(runs: Path) -> list[RunSummary]:
    """List the trainings of a folder, the oldest first. A folder without `recipe.json` is none.

    Raises `TrainingError` if the folder cannot be read. A missing one has no trainings.
    """
    try:
        found = [path.parent for path in runs.glob("*/recipe.json")]
        return [_summarise(folder) for folder in sorted(found, key=_began_at)]
    except OSError as error:
        raise TrainingError(f"{runs} cannot be read ({error.strerror}). Allow reading it, or name another.") from error


def _began_at(folder: Path) -> tuple[float, str]:
    return (folder / "recipe.json").stat().st_mtime, folder.name


def _summarise(folder: Path) -> RunSummary:
    published = _read(lambda: dict(_load(folder / "published.json"))) or {}
    history = _read(lambda: list(_load(folder / "history.json"))) or _read(lambda: _load_checkpoint(folder)) or []
    test: Any = published.get("test")

    version = _read(lambda: int(published["version"]))

    def share(name: str) -> float | None:
        value: float | None = _read(lambda: float(test[name]))
        return value

    return RunSummary(
        run=folder.name,
        model=_read(lambda: str(published["model"])),
        version=version,
        recipe=_read(lambda: str(_load(folder / "recipe.json")["name"])),
        num_photographs=_read(lambda: len(_load(folder / "split.json")["photographs"])),
        num_epochs=_read(lambda: int(history[-1]["epoch"]) + 1 if history else None),
        accuracy=share("accuracy"),
        accuracy_low=share("accuracy_low"),
        accuracy_high=share("accuracy_high"),
        seconds=_read(lambda: sum(float(epoch["seconds"]) for epoch in history) if history else None),
        is_finished=version is not None and published.get("finished", True) is True,
    )


def _read(read: Callable[[], Any]) -> Any:
    """Return what a function reads, or None where a file is missing or damaged."""
    with suppress(*_BROKEN):
        return read()
    return None


def _load(path: Path) -> Any:
    return json.loads(read_regular(path, _MAX_BYTES))


def _load_checkpoint(folder: Path) -> list[Any]:
    """Read the epochs of an unfinished training. The weights stay on the disk."""
    with np.load(folder / "checkpoint.npz", allow_pickle=False) as checkpoint:
        return list(json.loads(str(checkpoint["history"])))
