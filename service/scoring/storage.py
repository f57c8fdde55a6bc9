"""Files by path or URL. fsspec reads and writes URLs, with the credentials that it finds on the machine."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from glob import glob, has_magic
from pathlib import Path
from typing import IO, Any

from service.errors import FlowersError, InvalidImage, ScoringError, UsageError
from service.evaluation.score import read_photograph
from service.files import list_visible, write_whole
from service.imaging.limits import ImageLimits

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")


def is_url(place: str) -> bool:
    """Return whether a place is a URL such as s3://bucket/photo.jpg. Otherwise it is a local path."""
    return _URL.match(place) is not None


def make_absolute(place: str) -> str:
    """Return a place that means the same in every folder. Links are left."""
    return place if is_url(place) else os.path.abspath(place)  # noqa: PTH100 - `resolve` would follow links


def join(folder: str, name: str) -> str:
    """Return the place of a file in a folder."""
    return f"{folder.rstrip('/')}/{name}"


def read_image(place: str, limits: ImageLimits) -> bytes:
    """Read an image, at most one byte more than its limit.

    Raises `InvalidImage` for a missing or unreadable file. Raises `ScoringError` if the storage of a URL fails
    otherwise. Then no image is at fault.
    """
    if not is_url(place):
        return read_photograph(Path(place), limits)
    try:
        with _blamed(place, "read", FileNotFoundError, PermissionError, IsADirectoryError):
            file_system, path = _open_file_system(place)
            return bytes(file_system.cat_file(path, start=0, end=limits.max_image_bytes + 1))
    except OSError as error:
        raise InvalidImage(f"It cannot be read ({type(error).__name__}). Check the URL and its rights.") from error


@contextmanager
def opened(place: str) -> Iterator[IO[bytes]]:
    """Open a file for reading. Raises `OSError`, or `ScoringError` if the storage of a URL fails otherwise."""
    if not is_url(place):
        with Path(place).open("rb") as file:
            yield file
        return
    with _blamed(place, "opened", OSError):
        file_system, path = _open_file_system(place)
        remote = file_system.open(path, "rb")
    with remote:
        yield remote


def write_file(place: str, data: bytes) -> None:
    """Write a file. A reader meets all of it or nothing. The folder of a local one is made. Raises `ScoringError`."""
    with _blamed(place, "written"):
        if is_url(place):
            file_system, path = _open_file_system(place)
            file_system.makedirs(path.rpartition("/")[0], exist_ok=True)  # object stores do nothing here
            file_system.pipe_file(path, data)  # one PUT, which object stores do whole or not at all
        else:
            Path(place).parent.mkdir(parents=True, exist_ok=True)
            write_whole(Path(place), data)


def list_names(folder: str) -> set[str]:
    """List the names in a folder. A missing folder has none. Raises `ScoringError`."""
    try:
        with _blamed(folder, "listed", FileNotFoundError):
            if not is_url(folder):
                return {file.name for file in Path(folder).iterdir()}
            file_system, path = _open_file_system(folder)
            return {name.rstrip("/").rpartition("/")[2] for name in file_system.ls(path, detail=False, refresh=True)}
    except FileNotFoundError:
        return set()


def expand(source: str) -> list[str] | None:
    """List the files of a source: all below a folder, all that a pattern matches, or the file itself.

    Hidden files are left out. Folders sort like paths, and patterns like text. None means that nothing is there. Raises
    `ScoringError`.
    """
    with _blamed(source, "listed"):
        if is_url(source):
            return _expand_url(source)
        path = Path(source)
        if path.is_dir():
            return [str(file) for file in list_visible(path)]
        if path.exists():
            return [source]
        if has_magic(source):
            return sorted(place for place in glob(source, recursive=True) if Path(place).is_file()) or None  # noqa: PTH207
    return None


def _expand_url(source: str) -> list[str] | None:
    file_system, path = _open_file_system(source)
    if has_magic(path):
        found = [name for name, entry in file_system.glob(path, detail=True).items() if entry["type"] == "file"]
    elif file_system.isfile(path):
        found = [path]
    else:
        found = file_system.find(path)
    visible = sorted(name for name in found if not name.rpartition("/")[2].startswith("."))
    return [str(file_system.unstrip_protocol(name)) for name in visible] or None


def _open_file_system(url: str) -> tuple[Any, str]:
    from fsspec.core import url_to_fs  # here, as only the extra `ray` brings it

    try:
        file_system, path = url_to_fs(url)
    except (ValueError, ImportError) as error:  # an unknown scheme, or a missing library
        cause = str(error).rstrip(".")
        raise UsageError(f"{url} cannot be opened. {cause}. Install that, or copy the files.") from error
    return file_system, path


@contextmanager
def _blamed(place: str, what: str, *passed: type[Exception]) -> Iterator[None]:
    """Blame the storage for each error that is neither ours nor one of `passed`. Raises `ScoringError`."""
    try:
        yield
    except Exception as error:  # there is no list of what the libraries of fsspec raise
        if isinstance(error, (FlowersError, *passed)):
            raise
        cause = (str(error).strip() or repr(error)).splitlines()[0][:200]
        raise ScoringError(f"{place} cannot be {what} ({cause}). Mend that, and repeat the command.") from error
