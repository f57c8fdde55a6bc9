"""Run folder of a training: found by its name, locked by one process, kept when it is finished."""

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from service.errors import TrainingError

try:
    import fcntl
except ImportError:  # Windows has no such locks
    fcntl = None  # type: ignore[assignment]

PUBLISHED_FILE = "published.json"
_LOCK_FILE = "lock"


@dataclass(frozen=True)
class Run:
    """A run folder. `published` is what its finished training published, or None where there is work left."""

    folder: Path
    published: dict[str, Any] | None


@contextmanager
def open_run(
    runs: Path, name: str, is_there: Callable[[dict[str, Any]], bool], *, again: bool = False
) -> Iterator[Run]:
    """Lock the run folder that a training goes on in, and give it back at the end.

    The first folder of the name without a finished training is taken. Without one, the last finished training is
    returned, or a new folder made with `again`. The lock ends with its process.

    Args:
        runs: Folder of run folders.
        name: Name of the folder. A second one is called `<name>-2`.
        is_there: Whether a published version still exists. Without it the training counts as not done.
        again: Make a new folder where all trainings are finished.

    Raises:
        TrainingError: Another training holds the folder, or it cannot be made, read or written.
    """
    number, last = 1, None
    while True:
        folder = runs / (name if number == 1 else f"{name}-{number}")
        published = _read_published(folder)
        if published is not None and published.get("finished", True):
            last = Run(folder, published) if is_there(published) else last
            number += 1
            continue
        if last is not None and not again and not folder.exists():
            yield last
            return
        with _locked(folder):
            if _read_published(folder) != published:
                continue  # another training finished it meanwhile
            yield Run(folder, None)
            return


def make_folder(folder: Path) -> None:
    """Make a folder and those above it. One that is there is left as it is.

    Raises:
        TrainingError: It cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise TrainingError(f"the run folder {folder} cannot be made: {error.strerror}") from error


def _read_published(folder: Path) -> dict[str, Any] | None:
    path = folder / PUBLISHED_FILE
    try:
        published = dict(json.loads(path.read_bytes()))
        return {**published, "model": str(published["model"]), "version": int(published["version"])}
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise TrainingError(f"{path} cannot be read, or is damaged: remove the folder to train it anew") from error


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    make_folder(folder)
    try:
        descriptor = os.open(folder / _LOCK_FILE, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o666)
    except OSError as error:
        raise TrainingError(f"the run folder {folder} cannot be written: {error.strerror}") from error
    try:
        if fcntl is not None:
            _take_lock(descriptor, folder)
        yield
    finally:
        os.close(descriptor)


def _take_lock(descriptor: int, folder: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        process = os.pread(descriptor, 20, 0).decode("ascii", "replace").strip()
        raise TrainingError(
            f"another training{f' (process {process})' if process.isdigit() else ''} is at work in {folder}: "
            "wait until it ends, or stop it and give this command again; another --seed is another training"
        ) from error
    except OSError:  # a file system without locks
        return
    with suppress(OSError):  # a full disk: the number is only for the message
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
