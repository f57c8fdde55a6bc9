"""Folder with a subfolder per class, listed in the same order on every machine."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from service.data.names import can_be_shown, escape_text, normalise_name
from service.data.parts import PARTS, Part, describe_missing_classes, find_part
from service.data.shape import describe_shape, find_part_folders, is_made_by_program, list_visible
from service.errors import DatasetError

MAX_NAME_BYTES = 200  # limit of a class or file name, in UTF-8 bytes. File systems stop at 255
_MOST_NAMED = 10  # odd names in one message


@dataclass(frozen=True)
class Photograph:
    """File in a class folder. `check_folder` judges whether it is a photograph.

    `folder_name` is the name of its class folder. None means that this is the label. `part_folder` is the name of the
    folder of its part. None means that the folder gives no parts.
    """

    path: Path
    label: str
    folder_name: str | None = field(default=None, kw_only=True)
    part_folder: str | None = field(default=None, kw_only=True)

    @property
    def file(self) -> str:
        """Return `<label>/<file name>`, its unique name on every machine. Its part's folder stands before it."""
        file = f"{self.folder_name or self.label}/{self.path.name}"
        return f"{self.part_folder}/{file}" if self.part_folder else file

    @property
    def part(self) -> Part | None:
        """Return the part that its folder gives."""
        return find_part(self.part_folder) if self.part_folder else None


@dataclass(frozen=True)
class Folder:
    """Class folders under `path`. Labels are sorted by code point, photographs by (label, file name)."""

    path: Path
    class_names: tuple[str, ...]
    photographs: tuple[Photograph, ...]

    @property
    def given_parts(self) -> tuple[Part, ...]:
        """List the parts that a split folder gives. A folder of class folders gives none."""
        given = {photograph.part for photograph in self.photographs}
        return tuple(part for part in PARTS if part in given)


def read_folder(path: Path, *, may_lack_classes: bool = False) -> Folder:
    """List the class folders and their entries. No file is opened.

    Files beside the class folders are ignored. So are hidden entries, and those of systems and programs. Other entries
    are listed, even if they cannot be photographs. A class name has one form, Unicode's NFC. Two folders that differ in
    the form alone are one class. With `may_lack_classes` one class is enough, and a class folder may be empty.

    A split folder holds folders named as parts (`find_part`) and nothing else. Each holds class folders. The classes
    are those of all parts.

    Raises `DatasetError` for no such folder, one that cannot be read, an odd name, or another shape. If the class
    folders lie elsewhere, the message says where. Unless it `may_lack_classes`, each given part must have every class.
    """
    try:
        if not path.is_dir():
            is_there = path.exists()
            remedy = "Unpack it if it is an archive, and give the folder" if is_there else "Give a folder"
            found = f"{path} is a file, and no folder." if is_there else f"There is no folder {path}."
            raise DatasetError(f"{found} {remedy} that holds one subfolder per class.")
        class_folders = _list_class_folders(path)
        part_folders = find_part_folders(class_folders, may_lack_train=may_lack_classes)
        if part_folders:
            folders_of = {part_folder: _list_class_folders(part_folder) for part_folder in part_folders}
        else:
            folders_of = {path: class_folders}
        entries = {folder: list_visible(folder) for folders in folders_of.values() for folder in folders}
        _refuse_odd_names([*entries, *(entry for listed in entries.values() for entry in listed)])
        for parent, folders in folders_of.items():
            may_lack = may_lack_classes or bool(part_folders)
            if fault := describe_shape(parent, folders, may_lack_classes=may_lack):
                raise DatasetError(escape_text(fault))
    except OSError as error:
        raise DatasetError(
            f"{error.filename or path} cannot be read ({error.strerror}). Check the path and its rights."
        ) from error
    labels = sorted({normalise_name(folder.name) for folder in entries})
    photographs = _list_photographs(entries, {folder.name for folder in part_folders})
    folder = Folder(path, tuple(labels), tuple(photographs))
    if part_folders and not may_lack_classes:
        _refuse_lacking_parts(folder)
    return folder


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


def _list_class_folders(path: Path) -> list[Path]:
    return [entry for entry in list_visible(path) if entry.is_dir() and not is_made_by_program(entry)]


def _refuse_lacking_parts(folder: Folder) -> None:
    present = {part: {one.label for one in folder.photographs if one.part == part} for part in folder.given_parts}
    if len(folder.class_names) < 2:
        raise DatasetError(f"{folder.path} needs at least two classes, but has only {folder.class_names[0]}. Add one.")
    if fault := describe_missing_classes(folder.class_names, present):
        raise DatasetError(fault)


def _list_photographs(entries: Mapping[Path, Sequence[Path]], part_folders: Collection[str]) -> list[Photograph]:
    by_file: dict[str, Photograph] = {}
    for folder in sorted(entries, key=lambda folder: (folder.name != normalise_name(folder.name), folder.name)):
        label = normalise_name(folder.name)
        part_folder = folder.parent.name if folder.parent.name in part_folders else None
        for path in entries[folder]:
            photograph = Photograph(path, label, part_folder=part_folder)
            if photograph.file in by_file:  # the folder of the other form has such a file
                photograph = Photograph(path, label, folder_name=folder.name, part_folder=part_folder)
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
