"""Copies of photographs in folders named like classes. Their names are untrusted text."""

import os
import shutil
import unicodedata
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import count
from pathlib import Path

from service.data.names import can_be_shown
from service.errors import SettingsError
from service.files import open_regular

_MAX_NAME_BYTES = 200  # of a folder. File systems stop at 255


def check_copies_folder(folder: Path, originals: Path, flag: str) -> None:
    """Refuse a folder for copies unless it is empty, or can be made. It must not lie in the folder of the originals.

    Raises `SettingsError`.
    """
    if folder.resolve().is_relative_to(originals.resolve()):
        raise SettingsError(f"{flag} is {folder}, among the originals. Name a folder outside {originals}.")
    is_free = False
    with suppress(OSError):
        is_free = not any(folder.iterdir()) if folder.is_dir() else not os.path.lexists(folder)
    if not is_free or not os.access(folder if folder.is_dir() else folder.parent, os.W_OK | os.X_OK):
        raise SettingsError(f"{flag} is {str(folder)!r}. Name a new or an empty folder, where files can be written.")


def sort_photographs(folder: Path, labels: Sequence[tuple[Path, str]]) -> None:
    """Copy photographs to `<label>/<file name>` in a folder, which is made. No file is replaced.

    A second file of a name gets a number. A label that cannot be a folder's name is changed. Raises `SettingsError` if
    a file cannot be copied.
    """
    folder_names = name_folders(sorted({label for _, label in labels}))
    try:
        folder.mkdir(exist_ok=True)
        for path, label in labels:
            (folder / folder_names[label]).mkdir(exist_ok=True)
            copy_file(path, folder / folder_names[label])
    except OSError as error:
        raise SettingsError(
            f"The photographs cannot be sorted into {folder} ({error.strerror}, {error.filename}). Name another folder."
        ) from error


def name_folders(class_names: Sequence[str]) -> dict[str, str]:
    """Name a folder for each class. No two have one name, even where letter case does not count."""
    folder_names: dict[str, str] = {}
    taken: set[str] = set()
    for label in class_names:
        plain = "".join(char if can_be_shown(char) and char not in '/\\:*?"<>|' else "_" for char in label)
        plain = plain.encode()[:_MAX_NAME_BYTES].decode(errors="ignore").rstrip(". ")
        plain = plain if plain and not plain.startswith(".") else f"_{plain}"
        name = next(name for name in _number(plain) if _fold(name) not in taken)
        taken.add(_fold(name))
        folder_names[label] = name
    return folder_names


def _fold(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


def _number(name: str) -> Iterator[str]:
    yield name
    stem, suffix = os.path.splitext(name)  # noqa: PTH122 - a name is no path
    yield from (f"{stem}-{number}{suffix}" for number in count(2))


def copy_file(source: Path, folder: Path) -> None:
    """Copy a file into a folder, under the first free name. Raises `OSError`."""
    with open_regular(source) as original:
        for name in _number(source.name):
            try:
                copy = (folder / name).open("xb")
            except FileExistsError:
                continue
            with copy:
                shutil.copyfileobj(original, copy)
            return
