"""Cache of decoded photographs on a disk, for folders whose photographs do not fit into memory.

A file holds one part of a dataset in one form. Its name is a digest of all that decides its pixels. It is written
beside its place and renamed when it is whole. Processes share the files by locks.
"""

import json
import os
import shutil
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import BinaryIO

from PIL import __version__ as pillow_version
from PIL import features

from service.data.stored import Size, StoredPixels, is_sound, record_bytes, to_record
from service.errors import TrainingError
from service.files import bring_to_disk, digest_bytes
from service.imaging.pixels import Pixels
from service.machine import memory_left

try:
    import fcntl
except ImportError:  # Windows has no such locks
    fcntl = None  # type: ignore[assignment]

_FORMAT = 1  # raise it with every change of the decoder, of the resize, or of the records
_WHOLE, _DRAFT, _LOCK_FILE = ".pixels", ".draft", "lock"  # the lock is for writing, and files in use have their own
_MARGIN_BYTES = 256 * 1024 * 1024  # of the disk, for checkpoints and the version


@dataclass(frozen=True)
class PixelCache:
    """Folder of decoded photographs.

    Attributes:
        folder: The folder. It is made when it is needed.
        max_bytes: Limit of its size. The files that were unused for longest are deleted first.
        memory_bytes: Free memory in bytes. None asks the machine.
    """

    folder: Path
    max_bytes: int
    memory_bytes: int | None = None

    def is_needed(self, num_bytes: int) -> bool:
        """Return whether so many bytes of pixels take more than half of the free memory.

        The answer is False where the free memory is unknown or files cannot be locked.
        """
        if fcntl is None:
            return False
        free_bytes = (memory_left() or num_bytes * 2) if self.memory_bytes is None else self.memory_bytes
        return num_bytes > free_bytes // 2

    def find(self, key: str, sizes: Sequence[Size]) -> StoredPixels | None:
        """Return the photographs of a key, or None without a whole file that can be read."""
        if fcntl is None:
            return None
        try:
            return self._open(key, sizes)
        except OSError:
            return None

    def write(
        self, key: str, sizes: Sequence[Size], pixels_from: Callable[[int], Iterator[Pixels]]
    ) -> StoredPixels:  # fmt: skip
        """Return the photographs of a key. Write them first if there is no whole file.

        What a killed process has written is taken over. Another process that writes to this folder is awaited.

        Args:
            key: Key as of `name_part`.
            sizes: Sizes of the photographs.
            pixels_from: Function from a number to the pixels of this photograph and all later ones, each uint8
                (height, width, 3).

        Raises:
            TrainingError: The disk or `max_bytes` has no room, or the folder cannot be written.
        """
        path = self._path(key)
        draft = path.with_suffix(_DRAFT)
        with self._changing():
            while (found := self._open(key, sizes)) is None:
                self.folder.mkdir(parents=True, exist_ok=True)
                with (self.folder / _LOCK_FILE).open("wb") as lock:
                    _lock(lock, fcntl.LOCK_EX)
                    if not path.exists():  # else another process has finished it meanwhile
                        self._write(draft, sizes, pixels_from)
                        draft.replace(path)
                        bring_to_disk(self.folder)
        return found

    def _open(self, key: str, sizes: Sequence[Size]) -> StoredPixels | None:
        """Open and lock a whole file. Delete one of another size. Raises `OSError`."""
        path = self._path(key)
        try:
            file = path.open("rb")
        except FileNotFoundError:
            return None
        _lock(file, fcntl.LOCK_SH)  # as long as the file is open
        if not _is_at(file, path):  # another process has deleted it meanwhile
            file.close()
            return None
        if os.fstat(file.fileno()).st_size != sum(map(record_bytes, sizes)):
            file.close()
            path.unlink(missing_ok=True)
            return None
        with suppress(OSError):  # it is another user's
            os.utime(path)
        return StoredPixels(file, sizes)

    def _write(self, draft: Path, sizes: Sequence[Size], pixels_from: Callable[[int], Iterator[Pixels]]) -> None:
        with draft.open("a+b") as file:
            num_done, done_bytes = _count_sound(file, sizes)
            file.truncate(done_bytes)
            self._make_room(draft, sum(map(record_bytes, sizes)), done_bytes)
            for pixels in pixels_from(num_done):
                file.write(to_record(pixels))
            file.flush()
            os.fsync(file.fileno())

    def _make_room(self, draft: Path, num_bytes: int, done_bytes: int) -> None:
        """Delete what was unused for longest, until the draft fits. Raises `TrainingError` if it cannot fit."""
        others = [path for path in self.folder.iterdir() if path.suffix in (_WHOLE, _DRAFT) and path != draft]
        sizes = {path: path.stat() for path in others}
        taken = num_bytes + sum(found.st_size for found in sizes.values())
        free_bytes, missing = shutil.disk_usage(self.folder).free, num_bytes - done_bytes + _MARGIN_BYTES
        for path in sorted(sizes, key=lambda path: sizes[path].st_mtime_ns):
            is_full = taken > self.max_bytes or missing > free_bytes
            if num_bytes <= self.max_bytes and is_full and _delete_unless_used(path):
                taken, free_bytes = taken - sizes[path].st_size, free_bytes + sizes[path].st_size
        if taken > self.max_bytes:
            raise TrainingError(
                f"The decoded photographs need {_in_gb(num_bytes)} in {self.folder}, and {_in_gb(taken)} with the "
                f"files in use. The limit is {_in_gb(self.max_bytes)}. Raise --max-decoded-bytes to {taken}."
            )
        if missing > free_bytes:
            raise TrainingError(
                f"The decoded photographs need {_in_gb(missing)} in {self.folder}, and {_in_gb(free_bytes)} are free "
                "there. Make room, or name a folder on another disk with --cache (FLOWERS_CACHE)."
            )

    def _path(self, key: str) -> Path:
        return self.folder / f"{key}{_WHOLE}"

    @contextmanager
    def _changing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise TrainingError(
                f"The decoded photographs cannot be kept in {self.folder} ({error.strerror or error}). Make room "
                "there, or name another folder with --cache (FLOWERS_CACHE)."
            ) from error


def name_part(form: str, values: Collection[object], file_digests: Sequence[str]) -> str:
    """Return the key of photographs in one form: a digest of all that decides their pixels.

    `values` are plain values, such as of the rule and the limits. `file_digests` are those of the files, in order.
    """
    decoders = [pillow_version, *(features.version(name) for name in ("jpg", "webp", "avif", "littlecms2"))]
    with suppress(PackageNotFoundError):
        decoders.append(version("pi-heif"))
    return digest_bytes(json.dumps([_FORMAT, form, *values, decoders, *file_digests]).encode())


def _count_sound(file: BinaryIO, sizes: Sequence[Size]) -> tuple[int, int]:
    """Return the number of sound records that a draft begins with, and their bytes."""
    file.seek(0)
    done_bytes = 0
    for number, size in enumerate(sizes):
        record = file.read(record_bytes(size))
        if len(record) < record_bytes(size) or not is_sound(record):
            return number, done_bytes
        done_bytes += len(record)
    return len(sizes), done_bytes


def _lock(file: BinaryIO, kind: int) -> bool:
    """Lock an open file until it is closed. Return False if another has it, or if the file system has no locks."""
    try:
        fcntl.flock(file, kind)
    except OSError:
        return False
    return True


def _is_at(file: BinaryIO, path: Path) -> bool:
    """Return whether an open file still has its name."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def _delete_unless_used(path: Path) -> bool:
    """Delete a file that no process has locked. Return whether it is gone."""
    with path.open("rb") as file:
        if not _lock(file, fcntl.LOCK_EX | fcntl.LOCK_NB):
            return False
        path.unlink(missing_ok=True)
    return True


def _in_gb(num_bytes: int) -> str:
    return f"{num_bytes / 1e9:,.1f} GB"
