"""A folder with one subfolder per class: what is in it, in an order that every machine agrees on."""

from dataclasses import dataclass
from pathlib import Path

from service.errors import DatasetError

MAX_NAME_BYTES = 200
"""Longest class or file name, in UTF-8 bytes: names are built from it, and file systems stop at 255."""


@dataclass(frozen=True)
class Photograph:
    """One file in a class folder; whether it really is a photograph is judged by `check_folder`."""

    path: Path
    label: str


@dataclass(frozen=True)
class Folder:
    """The class folders under `path`: labels sorted by code point, photographs by (label, file name)."""

    path: Path
    class_names: tuple[str, ...]
    photographs: tuple[Photograph, ...]


def read_folder(path: Path) -> Folder:
    """List the class folders and what lies in them; no file is opened.

    Hidden entries (a leading dot) and files beside the class folders are ignored. Everything else is listed,
    even what cannot be a photograph: the check names it.

    Raises:
        DatasetError: there is no such folder, it cannot be read, it has fewer than two class folders, one of
            them holds no file, or a name cannot be written down (`describe_odd_name`).
    """
    try:
        if not path.is_dir():
            raise DatasetError(f"There is no folder {path}; give a folder that holds one subfolder per class.")
        class_folders = [entry for entry in _visible_entries(path) if entry.is_dir()]
        photographs = [Photograph(file, folder.name) for folder in class_folders for file in _files(folder)]
    except OSError as error:
        raise DatasetError(
            f"{error.filename or path} cannot be read ({error.strerror}); check the path and its rights."
        ) from error
    if len(class_folders) < 2:
        found = f"only {class_folders[0].name}" if class_folders else "none"
        raise DatasetError(f"{path} needs at least two class folders, but has {found}; make one subfolder per class.")
    return Folder(path, tuple(folder.name for folder in class_folders), tuple(photographs))


def describe_odd_name(name: str) -> str | None:
    """Why a class or file name cannot go into a split list, a report and a terminal; None when it can."""
    try:
        num_bytes = len(name.encode("utf-8"))
    except UnicodeEncodeError:  # the operating system's bytes were not UTF-8; Python keeps them as lone surrogates
        return "is not UTF-8"
    if num_bytes > MAX_NAME_BYTES:
        return f"is longer than {MAX_NAME_BYTES} bytes"
    if not name.isprintable() or "\\" in name:
        return "has a control character or a backslash"
    return None


def _files(class_folder: Path) -> list[Path]:
    _refuse_odd_name(class_folder)
    entries = _visible_entries(class_folder)
    if not any(entry.is_file() for entry in entries):
        raise DatasetError(f"The class folder {class_folder.name} holds no photograph; add some, or remove the folder.")
    for entry in entries:
        _refuse_odd_name(entry)
    return entries


def _visible_entries(folder: Path) -> list[Path]:
    entries = (entry for entry in folder.iterdir() if not entry.name.startswith("."))
    return sorted(entries, key=lambda entry: entry.name)


def _refuse_odd_name(entry: Path) -> None:
    if fault := describe_odd_name(entry.name):
        shown = entry.name if len(entry.name) <= 60 else entry.name[:60] + "..."
        raise DatasetError(f"The name {shown!a} in {entry.parent.name!a} {fault}; rename it.")
