"""Entries of a photograph folder that systems and programs make. They are neither classes nor photographs."""

import re
from pathlib import Path

_MADE_BY_SYSTEMS = frozenset(
    name.casefold()
    for name in (
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
    )
)  # fmt: skip
_RECOVERED = re.compile(r"found\.\d{3}", re.IGNORECASE)  # what Windows' check of a disk saves
_MARKS = ("pyvenv.cfg", "CACHEDIR.TAG")  # files that mark the folder around them as a Python environment or as a cache
_OUR_NAMES = frozenset({"runs", "model_store"})
_OUR_FILES = ("data_check.json", "*/data_check.json", "[0-9]*/saved_model.pb", "*/[0-9]*/saved_model.pb")
"""They tell a run folder, a folder of them, a model's folder and a model store."""


def list_visible(folder: Path) -> list[Path]:
    """List a folder without hidden entries and those of systems, sorted by name. Raises `OSError`."""
    entries = (entry for entry in folder.iterdir() if not is_made_by_system(entry.name))
    return sorted(entries, key=lambda entry: entry.name)


def is_made_by_system(name: str) -> bool:
    """Return whether an entry of that name is hidden or made by a system."""
    return name.startswith(".") or name.casefold() in _MADE_BY_SYSTEMS or bool(_RECOVERED.fullmatch(name))


def is_made_by_program(folder: Path) -> bool:
    """Return whether a program made this folder: a cache, a Python environment, run folders or a model store.

    A folder with a default name of ours counts only while no file is in it. A class may have that name.
    """
    entries = list_visible(folder)
    if any(entry.name in _MARKS for entry in entries):
        return True
    if any(next(folder.glob(pattern), None) for pattern in _OUR_FILES):
        return True
    return folder.name in _OUR_NAMES and not any(
        entry.is_file() or any(inner.is_file() for inner in list_visible(entry)) for entry in entries
    )
