"""Is a version what was published? Every file is there, unchanged, and none has come in."""

import hashlib
import os
import re
from collections.abc import Iterator
from pathlib import Path

from service.errors import InvalidVersion
from service.store.layout import METADATA_FILE, SAVED_MODEL_FILE, SHA256SUMS_FILE
from service.store.metadata import Metadata, read_metadata

# As `sha256sum` writes it, names that it would have to escape left out.
_LINE = re.compile(r"(?P<digest>[0-9a-f]{64}) [ *](?P<file>[^\x00-\x1f\\\ud800-\udfff]+)")
_LARGEST_SHA256SUMS_BYTES = 1024 * 1024


def verify_version(folder: Path) -> Metadata:
    """Check every file of a version against its SHA256SUMS, and read its metadata.

    Nothing of a version is to be loaded before this has returned. Reads every byte.

    Args:
        folder: `<store>/<model>/<version>`, as `resolve_version` gives it.

    Raises:
        InvalidVersion: a file is missing, changed, unlisted, a link or no plain file, or SHA256SUMS or the
            metadata cannot be read. Names the file as it lies in the version.
    """
    try:
        check_files(folder)
    except InvalidVersion as error:
        raise InvalidVersion(
            f"version {folder.name} is not what was published: {error}; copy it here again, or take another "
            "with `flowers models use`"
        ) from error
    return read_metadata(folder / METADATA_FILE)


def check_files(folder: Path) -> None:
    """What `verify_version` says of the files. Raises `InvalidVersion`, a clause without the remedy."""
    try:
        files = set(list_files(folder))
        listed = _read_sums(folder, files)
        for missing in sorted({SAVED_MODEL_FILE, METADATA_FILE, *listed} - files):
            raise InvalidVersion(f"{missing} is missing")
        for unlisted in sorted(files - listed.keys() - {SHA256SUMS_FILE}):
            raise InvalidVersion(f"{unlisted} is not in {SHA256SUMS_FILE}")
        for file, digest in listed.items():
            if digest_file(folder / file) != digest:
                raise InvalidVersion(f"{file} was changed")
    except OSError as error:
        file = os.path.relpath(error.filename or folder, folder)
        raise InvalidVersion(f"{file} cannot be read: {error.strerror}") from error


def list_files(folder: Path) -> Iterator[str]:
    """Every file below `folder`, relative to it and with forward slashes, in no order.

    Raises:
        InvalidVersion: something in it is a link or no plain file, or has a name that SHA256SUMS cannot hold.
        OSError: a folder cannot be listed.
    """

    def refuse(error: OSError) -> None:
        raise error  # os.walk leaves out what it cannot list

    for parent, folder_names, file_names in os.walk(folder, onerror=refuse):
        for name in folder_names + file_names:
            path = Path(parent, name)
            file = path.relative_to(folder).as_posix()
            if path.is_symlink() or not (path.is_file() or path.is_dir()):
                # A link could lead out of the store or change after the check; a pipe would block its reader.
                raise InvalidVersion(f"{file!r} is a link or a special file")
            if not _LINE.fullmatch(f"{'0' * 64}  {file}"):
                raise InvalidVersion(f"{file!r} has a character in its name that {SHA256SUMS_FILE} cannot hold")
            if name in file_names:
                yield file


def digest_file(path: Path) -> str:
    """sha256 of a file's bytes, 64 hexadecimal digits. Raises `OSError`."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _read_sums(folder: Path, files: set[str]) -> dict[str, str]:
    """File -> digest as SHA256SUMS lists them; a listed name is compared with `files`, not opened unseen."""
    if SHA256SUMS_FILE not in files:
        raise InvalidVersion(f"{SHA256SUMS_FILE} is missing")
    with (folder / SHA256SUMS_FILE).open("rb") as sums:
        text = sums.read(_LARGEST_SHA256SUMS_BYTES).decode("utf-8", "replace")
    listed: dict[str, str] = {}
    for number, line in enumerate(text.removesuffix("\n").split("\n"), start=1):
        match = _LINE.fullmatch(line)
        if match is None or match["file"] in listed:
            raise InvalidVersion(f"{SHA256SUMS_FILE} cannot be read at line {number}")
        listed[match["file"]] = match["digest"]
    return listed
