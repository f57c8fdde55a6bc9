"""Files that are read and written with care.

A reader never waits for a pipe or a device, and takes no more than its limit. A written file is whole or absent.
"""

import errno
import hashlib
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import IO

# Windows lacks some of these flags, and pipes among files as well.
_FLAGS = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
_NO_LINK = getattr(os, "O_NOFOLLOW", 0)
_PIECE_BYTES = 256 * 1024
_NOT_REGULAR = frozenset({errno.ENXIO, errno.ELOOP})  # of a socket, of a link


IMAGE_SUFFIXES = (
    ".jpg",
    ".jpeg",
    ".jpe",
    ".jfif",
    ".mpo",
    ".png",
    ".webp",
    ".gif",
    ".bmp",
    ".tif",
    ".tiff",
    ".avif",
    ".heic",
    ".heif",
)
"""Suffixes, in lower case, of the files that are taken from a folder of images."""


class UnfitFile(OSError):
    """A file that is not regular, or larger than its reader takes. The disk is not at fault."""


@dataclass(frozen=True)
class FileStamp:
    """The identity and times of a file or folder. A replaced or changed one has another stamp."""

    device: int
    inode: int
    size: int
    mtime_ns: int
    ctime_ns: int


def stamp_file(path: Path | str, *, follow_links: bool = False) -> FileStamp:
    """Return the stamp of a file or folder without opening it. Raises `OSError`."""
    found = os.stat(path, follow_symlinks=follow_links)  # noqa: PTH116 - a `Path` for each would cost as much again
    return FileStamp(found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


def list_visible(folder: Path) -> list[Path]:
    """List the files in a folder and below, sorted. Hidden files are left out."""
    return [file for file in sorted(folder.rglob("*")) if file.is_file() and not file.name.startswith(".")]


def open_regular(path: Path | str, *, follow_links: bool = True) -> BufferedReader:
    """Open a regular file for reading. Raises `UnfitFile` for any other, and `OSError`.

    A link is another one if `follow_links` is false.
    """
    try:
        descriptor = os.open(path, _FLAGS if follow_links else _FLAGS | _NO_LINK)
    except OSError as error:
        if error.errno in _NOT_REGULAR:
            raise _unfit(path, "it is no regular file") from error
        raise
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return os.fdopen(descriptor, "rb")
    os.close(descriptor)
    raise _unfit(path, "it is no regular file")


def read_bounded(path: Path | str, max_bytes: int, *, follow_links: bool = True) -> bytes:
    """Read a regular file. Read one byte more than `max_bytes` of a longer one. Raises as `open_regular`."""
    with open_regular(path, follow_links=follow_links) as file:
        return file.read(max_bytes + 1)


def read_regular(path: Path | str, max_bytes: int, *, follow_links: bool = True) -> bytes:
    """Read a regular file. Raises `UnfitFile` if it has more than `max_bytes`, or as `open_regular`."""
    with open_regular(path, follow_links=follow_links) as file:
        is_fit = os.fstat(file.fileno()).st_size <= max_bytes  # before memory is taken
        data = file.read(max_bytes + 1) if is_fit else b""
    if not is_fit or len(data) > max_bytes:
        raise _unfit(path, f"it has more than {max_bytes:,} bytes")
    return data


def write_whole(path: Path, data: bytes) -> None:
    """Write a file as `written_whole` does. Raises `OSError`."""
    with written_whole(path) as file:
        file.write(data)


@contextmanager
def written_whole(path: Path) -> Iterator[IO[bytes]]:
    """Open a file beside its place. After the block it is brought to the disk and renamed. Raises `OSError`.

    A reader, or a crash, meets the old file or the new one. After an exception nothing is left.
    """
    beside = path.with_name(f".writing-{secrets.token_hex(8)}")
    try:
        with beside.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def bring_to_disk(path: Path) -> None:
    """Wait until the disk holds a file, or the names in a folder. Raises `OSError`."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def digest_bytes(data: bytes) -> str:
    """Return the sha256 of bytes, 64 hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def digest_file(path: Path | str, max_bytes: int | None = None, *, follow_links: bool = True) -> str:
    """Return the sha256 of a regular file, 64 hexadecimal digits. Raises as `read_regular`."""
    digest, num_bytes = hashlib.sha256(), 0
    with open_regular(path, follow_links=follow_links) as file:
        while piece := file.read(_PIECE_BYTES):
            num_bytes += len(piece)
            if max_bytes is not None and num_bytes > max_bytes:
                raise _unfit(path, f"it has more than {max_bytes:,} bytes")
            digest.update(piece)
    return digest.hexdigest()


def _unfit(path: Path | str, why: str) -> UnfitFile:
    return UnfitFile(errno.EINVAL, why, os.fspath(path))
