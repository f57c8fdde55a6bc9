"""Verification of a version against its SHA256SUMS: every file is there, unchanged, and none was added."""

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from service.errors import ChangedVersion, InvalidVersion
from service.files import FileStamp, digest_bytes, digest_file, read_regular, stamp_file
from service.store.layout import METADATA_FILE, SAVED_MODEL_FILE, SHA256SUMS_FILE
from service.store.metadata import MAX_METADATA_BYTES, Metadata, parse_metadata

# As `sha256sum` writes it, names that it would have to escape left out.
_LINE = re.compile(r"(?P<digest>[0-9a-f]{64}) [ *](?P<file>[^\x00-\x1f\\\ud800-\udfff]+)")

MAX_SHA256SUMS_BYTES = 1024 * 1024  # limit of `SHA256SUMS`
MAX_VERSION_BYTES = 8 * 1024**3  # limit of the sum of a version's files. Some ten seconds read them


@dataclass(frozen=True)
class VerifiedVersion:
    """Version whose files are those of its SHA256SUMS.

    A file may be replaced afterwards. So `read` compares digests again. A loader of paths calls `check_unchanged`
    at its end. The digests are sha256 by file. The stamps are older than the reading of the files.
    """

    folder: Path
    metadata: Metadata
    digests: Mapping[str, str]
    stamps: Mapping[str, FileStamp]

    def read(self, file: str) -> bytes:
        """Return the bytes of a file of SHA256SUMS. Raises `InvalidVersion`, or `ChangedVersion` for other bytes."""
        if file not in self.digests:
            raise InvalidVersion(f"Version {self.folder.name} has no {file}. Export it again.")
        try:
            data = read_regular(self.folder / file, self.stamps[file].size, follow_links=False)
        except OSError as error:
            raise self._changed(file) from error
        if digest_bytes(data) != self.digests[file]:
            raise self._changed(file)
        return data

    def check_unchanged(self) -> None:
        """Compare every file once more, after they were loaded by path.

        Stamps reveal a file that was replaced and put back. Raises `ChangedVersion`.
        """
        try:
            for file, digest in self.digests.items():
                if digest_file(self.folder / file, self.stamps[file].size, follow_links=False) != digest:
                    raise self._changed(file)
            stamps = _stamp_all(self.folder)
        except OSError as error:
            raise self._changed(os.path.relpath(error.filename or self.folder, self.folder)) from error
        except InvalidVersion as error:
            raise error if isinstance(error, ChangedVersion) else self._changed("a file") from error
        for name in self.stamps.keys() | stamps.keys():
            if self.stamps.get(name) != stamps.get(name):
                raise self._changed(name)

    def _changed(self, file: str) -> ChangedVersion:
        return ChangedVersion(
            f"{file} of version {self.folder.name} was changed while the version was loaded. Leave its files alone, "
            "and load it again."
        )


def verify_version(folder: Path) -> VerifiedVersion:
    """Compare every byte of a version in `<store>/<model>/<version>` with its SHA256SUMS, before it is loaded.

    Raises `InvalidVersion` for a missing, changed, unlisted, unreadable or odd file, and for files that are too large.
    """
    try:
        stamps, digests, metadata = _check(folder)
    except InvalidVersion as error:
        raise InvalidVersion(
            f"Version {folder.name} is not what was published. {error} Copy it here again, or serve another "
            "with `flowers models use`."
        ) from error
    return VerifiedVersion(folder, parse_metadata(metadata, version=folder.name), digests, stamps)


def check_draft(folder: Path) -> None:
    """Verify a version before it has its number. Raises `InvalidVersion` without the remedy."""
    _, _, metadata = _check(folder)
    parse_metadata(metadata, version=folder.name)


def _check(folder: Path) -> tuple[dict[str, FileStamp], dict[str, str], bytes]:
    """Return stamps and digests by file, and the bytes of the metadata."""
    metadata = b""
    try:
        stamps = _stamp_all(folder)
        files = set(list_files(folder))
        listed = _read_sums(folder, files)
        for missing in sorted({SAVED_MODEL_FILE, METADATA_FILE, *listed} - files):
            raise InvalidVersion(f"{missing} is missing.")
        for unlisted in sorted(files - listed.keys() - {SHA256SUMS_FILE}):
            raise InvalidVersion(f"{unlisted} is not in {SHA256SUMS_FILE}.")
        if sum(stamps[file].size for file in listed) > MAX_VERSION_BYTES:
            raise InvalidVersion(f"Its files have more than {MAX_VERSION_BYTES:,} bytes.")
        for file, digest in listed.items():
            if file == METADATA_FILE:
                metadata = read_regular(folder / file, MAX_METADATA_BYTES, follow_links=False)
                found = digest_bytes(metadata)
            else:
                found = digest_file(folder / file, stamps[file].size, follow_links=False)
            if found != digest:
                raise InvalidVersion(f"{file} was changed.")
    except OSError as error:
        file = os.path.relpath(error.filename or folder, folder)
        raise InvalidVersion(f"Path {file} cannot be read ({error.strerror}).") from error
    return stamps, listed, metadata


def _stamp_all(folder: Path) -> dict[str, FileStamp]:
    stamps = {".": stamp_file(folder), "./": stamp_file(folder, follow_links=True)}  # the folder may be a link
    for path in folder.rglob("*"):
        stamps[path.relative_to(folder).as_posix()] = stamp_file(path)
    return stamps


def list_files(folder: Path) -> Iterator[str]:
    """Yield every file below `folder`, relative to it, with forward slashes, in no order.

    Raises `InvalidVersion` for a link, a special file, or a name that SHA256SUMS cannot hold, and `OSError`.
    """

    def refuse(error: OSError) -> None:
        raise error  # os.walk leaves out what it cannot list

    for parent, folder_names, file_names in os.walk(folder, onerror=refuse):
        for name in folder_names + file_names:
            path = Path(parent, name)
            file = path.relative_to(folder).as_posix()
            if path.is_symlink() or not (path.is_file() or path.is_dir()):
                raise InvalidVersion(f"{file!r} is a link or a special file.")
            if not can_be_listed(file):
                raise InvalidVersion(f"{file!r} has a character in its name that {SHA256SUMS_FILE} cannot hold.")
            if name in file_names:
                yield file


def can_be_listed(file: str) -> bool:
    """Return whether SHA256SUMS can hold this name. It has no control character and no backslash."""
    return _LINE.fullmatch(f"{'0' * 64}  {file}") is not None


def write_sums(digests: Mapping[str, str]) -> bytes:
    """Return the content of SHA256SUMS for digests by file, sorted by file."""
    return "".join(f"{digests[file]}  {file}\n" for file in sorted(digests)).encode()


def _read_sums(folder: Path, files: set[str]) -> dict[str, str]:
    if SHA256SUMS_FILE not in files:
        raise InvalidVersion(f"{SHA256SUMS_FILE} is missing.")
    return read_sums(read_regular(folder / SHA256SUMS_FILE, MAX_SHA256SUMS_BYTES, follow_links=False))


def read_sums(content: bytes) -> dict[str, str]:
    """Return the digests by file that SHA256SUMS holds. Raises `InvalidVersion`. A name may be any path."""
    text = content.decode("utf-8", "replace")
    listed: dict[str, str] = {}
    for number, line in enumerate(text.removesuffix("\n").split("\n"), start=1):
        match = _LINE.fullmatch(line)
        if match is None or match["file"] in listed:
            raise InvalidVersion(f"{SHA256SUMS_FILE} cannot be read at line {number}.")
        listed[match["file"]] = match["digest"]
    return listed
