"""Archives of versions, which travel between stores: a gzipped tar of plain files, packed and checked.

Its entries are named `<model>/<version>/<file>`, or `<model>/candidates/<version>/<file>`. Equal versions give equal
archives.
"""

import gzip
import io
import shutil
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from service.errors import ArchiveError, InvalidVersion, UsageError
from service.files import read_regular, written_whole
from service.store.layout import CANDIDATES_FOLDER, MODEL_NAME, SHA256SUMS_FILE, parse_version
from service.store.publish import publish_version
from service.store.verify import (
    MAX_SHA256SUMS_BYTES,
    MAX_VERSION_BYTES,
    can_be_listed,
    check_draft,
    verify_version,
    write_sums,
)
from service.store.versions import StoredVersion, list_candidates, list_stored

MAX_ARCHIVE_BYTES = MAX_VERSION_BYTES
"""Limit of an archive, in bytes."""

_MAX_ENTRIES = 256  # a version has ten
_MAX_RATIO = 4  # unpacked bytes per byte of archive. Weights do not compress, a bomb does
_FREE_BYTES = 1024 * 1024  # unpacked bytes that any archive may have. Small versions are mostly text
_PIECE_BYTES = 64 * 1024  # of one read. tarfile reads a header's texts at once
_PLAIN_TYPES = (tarfile.REGTYPE, tarfile.AREGTYPE)


@dataclass(frozen=True)
class PulledVersion:
    """Version or candidate of an archive, in its new store. `is_new` is false if the store had it already."""

    stored: StoredVersion
    is_new: bool = True


@dataclass(frozen=True)
class _Contents:
    """Checked entries of an archive: where they come from, their paths by entry, and the bytes of SHA256SUMS."""

    model: str
    version: int
    is_candidate: bool
    files: dict[tarfile.TarInfo, str]
    sums: bytes


def pack_version(stored: StoredVersion, target: Path) -> None:
    """Write a version or a candidate into a new archive, after verifying every byte.

    Raises `InvalidVersion`, `UsageError` if `target` is there already, and `ArchiveError` if it cannot be written.
    """
    verified = verify_version(stored.folder)
    if target.exists():
        raise UsageError(f"{target} is there already. Remove it, or name another file with --to.")
    home = PurePosixPath(stored.model, *([CANDIDATES_FOLDER] if stored.is_candidate else []), str(stored.version))
    try:
        with (
            written_whole(target) as file,
            gzip.GzipFile(filename="", mode="wb", fileobj=file, mtime=0) as compressed,
            tarfile.open(fileobj=compressed, mode="w:") as tar,
        ):
            for name in sorted((*verified.digests, SHA256SUMS_FILE)):
                data = write_sums(verified.digests) if name == SHA256SUMS_FILE else verified.read(name)
                entry = tarfile.TarInfo(str(home / name))  # without owner and time
                entry.size = len(data)
                tar.addfile(entry, io.BytesIO(data))
    except OSError as error:
        raise ArchiveError(
            f"{target} cannot be written ({error.strerror or error}). Make room, or name another file with --to."
        ) from error


def pull_version(
    store: Path, archive: IO[bytes], *, model: str | None = None, take: bool | None = None
) -> PulledVersion:
    """Check an archive, and publish its version in a store. It keeps its number, unless the model is past it.

    The first version of a model becomes a version. A later one, or what was packed as a candidate, becomes a candidate.
    `take` overrules. A version that the store has already is not published again.

    Args:
        store: Folder of the models. It is made if it is missing.
        archive: The archive, whose digest is known to be right. Nobody else may write to it.
        model: Name that the archive's model must have. None takes any.
        take: Whether to make it a version. None decides as above.

    Raises:
        ArchiveError: The archive is not what `pack_version` writes. Nothing of it was kept.
        PublishError: The store cannot be written.
    """
    with _opened(archive) as tar:
        contents = _check(tar)
        if model is not None and contents.model != model:
            raise ArchiveError(
                f"The archive holds a version of {contents.model}, not of {model}. Leave out --model, or pull another."
            )
        there = [*list_stored(store, contents.model), *list_candidates(store, contents.model)]
        for stored in there:
            if _is_same(stored, contents):
                return PulledVersion(stored, is_new=False)
        has_versions = not all(stored.is_candidate for stored in there)
        with publish_version(store, contents.model, least_version=contents.version) as draft:
            draft.is_candidate = contents.is_candidate or has_versions if take is None else not take
            _unpack(tar, contents, draft.folder)
    return PulledVersion(StoredVersion(contents.model, draft.version, draft.folder, False, draft.is_candidate))


def _is_same(stored: StoredVersion, contents: _Contents) -> bool:
    with suppress(OSError, InvalidVersion):
        if read_regular(stored.folder / SHA256SUMS_FILE, MAX_SHA256SUMS_BYTES) == contents.sums:
            verify_version(stored.folder)
            return True
    return False


class _Decompressed:
    """Bytes of a gzip file, with a limit on one read and on the position. tarfile has neither."""

    def __init__(self, archive: IO[bytes]) -> None:
        num_bytes = archive.seek(0, io.SEEK_END)
        self._max_position = min(MAX_VERSION_BYTES, _MAX_RATIO * num_bytes + _FREE_BYTES)
        archive.seek(0)
        self._file = gzip.GzipFile(fileobj=archive, mode="rb")

    def read(self, num_bytes: int) -> bytes:
        if num_bytes > _PIECE_BYTES:
            raise _refuse(f"has a header of more than {_PIECE_BYTES:,} bytes")
        self._check(self._file.tell() + num_bytes)
        return self._file.read(num_bytes)

    def seek(self, position: int) -> int:
        self._check(position)
        return self._file.seek(position)

    def tell(self) -> int:
        return self._file.tell()

    def _check(self, position: int) -> None:
        if position > self._max_position:
            raise _refuse(f"unpacks to more than {self._max_position:,} bytes, {_MAX_RATIO} times its size")


@contextmanager
def _opened(archive: IO[bytes]) -> Iterator[tarfile.TarFile]:
    """Open an archive. What tarfile and gzip raise over broken bytes becomes an `ArchiveError`."""
    try:
        with tarfile.open(fileobj=_Decompressed(archive), mode="r:") as tar:  # type: ignore[call-overload]
            yield tar
    except (
        tarfile.TarError, gzip.BadGzipFile, zlib.error, EOFError, ValueError, ArithmeticError, LookupError,
        RecursionError,
    ) as error:  # fmt: skip
        raise _refuse("cannot be read. It is broken, cut short or no gzipped tar") from error


def _check(tar: tarfile.TarFile) -> _Contents:
    """Check every entry before anything is written."""
    files: dict[tarfile.TarInfo, str] = {}
    homes = set()
    for number, entry in enumerate(tar, start=1):
        if number > _MAX_ENTRIES:
            raise _refuse(f"has more than {_MAX_ENTRIES} entries")
        parts = entry.name.split("/")
        if {"", ".", ".."} & set(parts) or not can_be_listed(entry.name):
            raise _refuse(f"holds {entry.name[:80]!a}, which is no relative path of plain names")
        if entry.isdir():
            continue  # folders are made as files need them
        if entry.type not in _PLAIN_TYPES or entry.issparse() or entry.size < 0:
            raise _refuse(f"holds {entry.name[:80]!a}, which is a link, a device or another special file")
        depth = 3 if parts[1:2] == [CANDIDATES_FOLDER] else 2
        homes.add(tuple(parts[:depth]))
        path = "/".join(parts[depth:])
        if path in files.values():
            raise _refuse(f"holds {entry.name[:80]!a} twice")
        files[entry] = path
    home = homes.pop() if len(homes) == 1 else ("",)
    model, version = home[0], parse_version(home[-1])
    if not MODEL_NAME.fullmatch(model) or version is None or "" in files.values():
        raise _refuse("does not hold the files of one version, as MODEL/VERSION/FILE")
    listing = next((entry for entry, path in files.items() if path == SHA256SUMS_FILE), None)
    reader = tar.extractfile(listing) if listing else None
    sums = reader.read(MAX_SHA256SUMS_BYTES) if reader else b""
    return _Contents(model, version, CANDIDATES_FOLDER in home, files, sums)


def _unpack(tar: tarfile.TarFile, contents: _Contents, folder: Path) -> None:
    for entry, path in contents.files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        source = tar.extractfile(entry)
        assert source is not None  # a plain file has content
        with (folder / path).open("xb") as file:
            shutil.copyfileobj(source, file, _PIECE_BYTES)
    try:
        check_draft(folder)
    except InvalidVersion as error:
        raise ArchiveError(f"The archive holds no sound version. {error} Pack it again.") from error


def _refuse(what: str) -> ArchiveError:
    return ArchiveError(f"The archive {what}. Nothing of it was kept. Pack it again with `flowers models pack`.")
