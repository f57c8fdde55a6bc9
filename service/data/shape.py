"""Shape of a photograph folder: its entries, without those of systems and programs, and misplaced class folders."""

import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path

from service.data.names import join_names, normalise_name
from service.data.parts import find_part

_MADE_BY_SYSTEMS = frozenset(
    map(str.casefold, (
        # Windows
        "$RECYCLE.BIN", "RECYCLER", "RECYCLED", "System Volume Information", "Config.Msi", "MSOCache",
        "Thumbs.db", "ehthumbs.db", "ehthumbs_vista.db", "desktop.ini", "Picasa.ini", "ZbThumbnail.info",
        # macOS; a share writes the carriage return as U+F00D
        "__MACOSX", "Icon\r", "Icon\uf00d", "Network Trash Folder", "Temporary Items", "TheVolumeSettingsFolder",
        "TheFindByContentFolder", "Desktop DB", "Desktop DF",
        # Linux, Android, network storage
        "lost+found", "LOST.DIR", "@eaDir", "@tmp", "#recycle", "#snapshot", "@Recycle", "@Recently-Snapshot",
        "~snapshot",
        # Python
        "__pycache__",
    ))
)  # fmt: skip
_RECOVERED = re.compile(r"found\.\d{3}", re.IGNORECASE)  # what Windows' check of a disk saves
_MARKS = ("pyvenv.cfg", "CACHEDIR.TAG")  # files that mark the folder around them as a Python environment or as a cache
_OUR_NAMES = frozenset({"runs", "model_store"})
_OUR_FILES = (
    *("data_check.json", "*/data_check.json", "[0-9]*/saved_model.pb", "*/[0-9]*/saved_model.pb"),
    *("candidates/[0-9]*/saved_model.pb", "*/candidates/[0-9]*/saved_model.pb"),
)
"""They tell a run folder, a folder of them, a model's folder and a model store."""

_PHOTOGRAPH_SUFFIXES = frozenset(
    (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif", ".heic", ".heif")
)
_DEPTH, _MOST_FOLDERS, _MOST_INNER = 3, 500, 5
"""Levels to search below the folder, folders to list, and folders to name of one class."""


def list_visible(folder: Path) -> list[Path]:
    """List a folder without hidden entries and those of systems, sorted by name. Raises `OSError`."""
    names = sorted(entry.name for entry in folder.iterdir() if entry.name.casefold() not in _MADE_BY_SYSTEMS)
    return [folder / name for name in names if not name.startswith(".") and not _RECOVERED.fullmatch(name)]


def is_made_by_program(folder: Path) -> bool:
    """Return whether a program made this folder: a cache, a Python environment, run folders or a model store.

    A folder with a default name of ours counts only while no file is in it. A class may have that name.
    """
    entries = list_visible(folder)
    if any(entry.name in _MARKS for entry in entries) or any(any(folder.glob(pattern)) for pattern in _OUR_FILES):
        return True
    return folder.name in _OUR_NAMES and not any(
        entry.is_file() or any(inner.is_file() for inner in list_visible(entry)) for entry in entries
    )


def find_part_folders(folders: Sequence[Path], *, may_lack_train: bool) -> list[Path]:
    """Return these folders if they make a split: two or more, each named as a part and with class folders alone.

    Otherwise the list is empty. Without `may_lack_train` one of them must be of training.
    """
    parts = {find_part(folder.name) for folder in folders if _is_part(folder)}
    has_train = may_lack_train or "train" in parts
    return list(folders) if len(folders) >= 2 and has_train and all(map(_is_part, folders)) else []


def describe_shape(path: Path, class_folders: Sequence[Path], *, may_lack_classes: bool) -> str | None:
    """Describe the fault of a folder whose photographs do not lie directly in class folders. None means no fault.

    `class_folders` are its subfolders that may be classes. The description names the folder to give.
    """
    deeper = {folder: found for folder in class_folders if (found := _find_deeper(folder))}
    full = [folder for folder in class_folders if folder not in deeper and _holds_file(folder)]
    min_classes = 1 if may_lack_classes else 2
    if _count_classes(filter(_holds_photograph, class_folders)) < min_classes and (meant := _find_meant(class_folders)):
        return _describe_meant(path, meant, class_folders)
    if deeper:
        return _describe_deeper(path, deeper)
    if not class_folders and _holds_photograph(path):
        return _describe_loose(path)
    empty = [folder.name for folder in class_folders if folder not in full]
    if empty and not may_lack_classes:
        if len(empty) == 1:
            return f"The class folder {empty[0]} holds no photograph. Add some, or remove the folder."
        return f"The class folders {join_names(empty)} hold no photograph. Add some, or remove the folders."
    if _count_classes(full) >= min_classes:
        return None
    present = f"only {class_folders[0].name}" if full else "none"
    wanted = "a class folder with photographs" if may_lack_classes else "at least two class folders"
    return f"{path} needs {wanted}, but has {present}. Make one subfolder per class."


def _count_classes(folders: Iterable[Path]) -> int:
    return len({normalise_name(folder.name) for folder in folders})


def _describe_meant(path: Path, meant: Sequence[Path], class_folders: Sequence[Path]) -> str:
    if len(meant) == 1:
        return f"The class folders are not in {path} itself, but in {meant[0]}. Give {meant[0]} instead."
    names = join_names([folder.name for folder in meant])
    if len(parts := list(filter(_is_part, meant))) >= 2:
        return _describe_parts(path, parts, class_folders)
    inner = join_names([str(folder.relative_to(path)) for part in meant for folder in _subfolders(part)])
    return (
        f"The photographs lie one level too deep, in {inner} of {path}. A class folder must hold its photographs "
        f"itself. Move them up into {names}, or give the folder whose subfolders are the classes, such as {meant[0]}."
    )


def _describe_parts(path: Path, parts: Sequence[Path], class_folders: Sequence[Path]) -> str:
    names, parent = join_names([folder.name for folder in parts]), parts[0].parent
    if parent != path:
        return f"The parts {names} are not in {path} itself, but in {parent}. Give {parent} instead."
    if others := [folder.name for folder in class_folders if not _is_part(folder)]:
        return (
            f"{path} holds the parts {names}, but also {join_names(others)}. Of a split folder each folder is called "
            f"train, validation or test, and holds class folders alone. Rename {join_names(others)}, or move it out."
        )
    return (
        f"{path} holds the parts {names}, but none to train on. Add a folder train with class folders, or give one of "
        f"them, such as {parts[0]}."
    )


def _is_part(folder: Path) -> bool:
    is_named_so = find_part(folder.name) is not None
    return is_named_so and not _holds_photograph(folder) and any(map(_holds_photograph, _subfolders(folder)))


def _describe_deeper(path: Path, deeper: dict[Path, list[Path]]) -> str:
    inner = join_names([str(found.relative_to(path)) for folders in deeper.values() for found in folders])
    names = join_names([folder.name for folder in deeper])
    return (
        f"The photographs of {names} lie deeper, in {inner} of {path}. A class folder must hold its photographs "
        f"itself. Move them up into {names}, or move what is no class out of {path}."
    )


def _describe_loose(path: Path) -> str:
    parent = path.resolve().parent
    if sum(map(_holds_photograph, _subfolders(parent))) >= 2:
        return f"{path} is one class folder. Give the folder around it, {parent}."
    return f"{path} holds photographs, but no class folders. Make one subfolder per class, and move them there."


def _find_meant(folders: Sequence[Path]) -> list[Path]:
    """Find the nearest folders with two class folders or more, among these and below."""
    num_left = _MOST_FOLDERS
    for _ in range(_DEPTH):
        folders = folders[: max(num_left, 0)]
        num_left -= len(folders)
        inner = {folder: _subfolders(folder) for folder in folders}
        meant = [folder for folder in folders if len(list(islice(filter(_holds_photograph, inner[folder]), 2))) == 2]
        if meant:
            return meant
        folders = [subfolder for subfolders in inner.values() for subfolder in subfolders]
    return []


def _find_deeper(folder: Path) -> list[Path]:
    if _holds_photograph(folder):
        return []
    return list(islice(filter(_holds_photograph, islice(_walk(folder, _DEPTH), _MOST_FOLDERS)), _MOST_INNER))


def _walk(folder: Path, depth: int) -> Iterator[Path]:
    for subfolder in _subfolders(folder) if depth else ():
        yield subfolder
        yield from _walk(subfolder, depth - 1)


def _subfolders(folder: Path) -> list[Path]:
    return [entry for entry in _list_readable(folder) if entry.is_dir() and not is_made_by_program(entry)]


def _holds_photograph(folder: Path) -> bool:
    files = (entry for entry in _list_readable(folder) if entry.suffix.lower() in _PHOTOGRAPH_SUFFIXES)
    return any(file.is_file() for file in files)


def _holds_file(folder: Path) -> bool:
    return any(entry.is_file() for entry in _list_readable(folder))


def _list_readable(folder: Path) -> list[Path]:
    with suppress(OSError):  # around and below the folder it is only a search for advice
        return list_visible(folder)
    return []
