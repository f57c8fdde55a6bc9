"""Folder with a subfolder per class, listed in the same order on every machine."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from service.data.names import can_be_shown, escape_text, normalise_name
from service.data.shape import describe_shape, is_made_by_program, list_visible
from service.errors import DatasetError

MAX_NAME_BYTES = 200  # limit of a class or file name, in UTF-8 bytes. File systems stop at 255
_MOST_NAMED = 10  # odd names in one message


@dataclass(frozen=True)
class Photograph:
    """File in a class folder. `check_folder` judges whether it is a photograph.

    `folder_name` is the name of its class folder. None means that this is the label.
    """

    path: Path
    label: str
    folder_name: str | None = field(default=None, kw_only=True)

    @property
    def file(self) -> str:
        """Return `<label>/<file name>`, its unique name on every machine."""
        return f"{self.folder_name or self.label}/{self.path.name}"


@dataclass(frozen=True)
class Folder:
    """Class folders under `path`. Labels are sorted by code point, photographs by (label, file name)."""

    path: Path
    class_names: tuple[str, ...]
    photographs: tuple[Photograph, ...]


def read_folder(path: Path, *, may_lack_classes: bool = False) -> Folder:
    """List the class folders and their entries. No file is opened.

    Files beside the class folders are ignored. So are hidden entries, and those of systems and programs. Other entries
    are listed, even if they cannot be photographs. A class name has one form, Unicode's NFC. Two folders that differ in
    the form alone are one class. With `may_lack_classes` one class is enough, and a class folder may be empty.

    Raises `DatasetError` for no such folder, one that cannot be read, an odd name, or another shape. If the class
    folders lie elsewhere, the message says where.
    """
    try:
        if not path.is_dir():
            is_there = path.exists()
            remedy = "Unpack it if it is an archive, and give the folder" if is_there else "Give a folder"
            found = f"{path} is a file, and no folder." if is_there else f"There is no folder {path}."
            raise DatasetError(f"{found} {remedy} that holds one subfolder per class.")
        class_folders = [entry for entry in list_visible(path) if entry.is_dir() and not is_made_by_program(entry)]
        entries = {folder: list_visible(folder) for folder in class_folders}
        _refuse_odd_names([*class_folders, *(entry for listed in entries.values() for entry in listed)])
        if fault := describe_shape(path, class_folders, may_lack_classes=may_lack_classes):
            raise DatasetError(escape_text(fault))
    except OSError as error:
        raise DatasetError(
            f"{error.filename or path} cannot be read ({error.strerror}). Check the path and its rights."
        ) from error
    labels = sorted({normalise_name(folder.name) for folder in class_folders})
    return Folder(path, tuple(labels), tuple(_list_photographs(entries)))


def describe_odd_name(name: str) -> str | None:
    """Return why a name cannot go into a split list, a report and a terminal. None means that it can."""
    try:
        num_bytes = len(name.encode("utf-8"))
    except UnicodeEncodeError:  # the operating system's bytes were not UTF-8; Python keeps them as lone surrogates
        return "is not UTF-8"
    if num_bytes > MAX_NAME_BYTES:
        return f"is longer than {MAX_NAME_BYTES} bytes"
    if not all(can_be_shown(char) for char in name) or "\\" in name:
        return "has a control character or a backslash"
    return None


def _list_photographs(entries: Mapping[Path, Sequence[Path]]) -> list[Photograph]:
    by_file: dict[str, Photograph] = {}
    for folder in sorted(entries, key=lambda folder: (folder.name != normalise_name(folder.name), folder.name)):
        label = normalise_name(folder.name)
        for path in entries[folder]:
            photograph = Photograph(path, label)
            if photograph.file in by_file:  # the folder of the other form has such a file
                photograph = Photograph(path, label, folder_name=folder.name)
            by_file[photograph.file] = photograph
    return sorted(by_file.values(), key=lambda photograph: (photograph.label, photograph.path.name, photograph.file))


def _refuse_odd_names(entries: Iterable[Path]) -> None:
    faults = [(entry, fault) for entry in entries if (fault := describe_odd_name(entry.name))]
    if not faults:
        return
    named = [
        f"{entry.name[:60] + '...' * (len(entry.name) > 60)!a} in {entry.parent.name!a} {fault}"
        for entry, fault in faults[:_MOST_NAMED]
    ]
    more = f". There are {len(faults) - _MOST_NAMED} more" if len(faults) > _MOST_NAMED else ""
    subject, remedy = ("The name", "Rename it") if len(faults) == 1 else (f"{len(faults)} odd names.", "Rename them")
    raise DatasetError(f"{subject} {'. '.join(named)}{more}. {remedy}.")
