"""Cache of one model of a remote store, in the layout of a store. Processes of one machine share it by locks."""

import errno
import os
import secrets
import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from service.errors import RemoteStoreError
from service.files import bring_to_disk, read_regular, write_whole
from service.store.layout import PINNED_FILE, REMOVING_PREFIX, SHA256SUMS_FILE, model_folder, version_folder
from service.store.verify import MAX_SHA256SUMS_BYTES
from service.store.versions import list_stored

PULLING_PREFIX = ".pulling-"
"""Beginning of the name of a version that is being pulled. Its number follows."""

_LOCK_FILE = ".lock"
_LEASE_PREFIX = ".in-use-"
_TAKEN = (errno.EWOULDBLOCK, errno.EACCES)


class ModelCache:
    """Versions of one model in the cache.

    A process holds a lease on each version that it needs. No process drops a version on which another has a lease.

    Args:
        store: Folder of the cache of one remote store. It is made when it is locked.
        model: Name of the model.
    """

    def __init__(self, store: Path, model: str) -> None:
        self._store = store
        self._model = model
        self._folder = model_folder(store, model)
        self._leases: dict[int, int] = {}

    @contextmanager
    def locked(self) -> Iterator[bool]:
        """Lock the cache for changes. It yields False if another process has the lock. Raises `RemoteStoreError`."""
        with changing(self._folder):
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = os.open(self._folder / _LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            yield _lock(descriptor, is_shared=False)
        finally:
            os.close(descriptor)

    @property
    def leased(self) -> Collection[int]:
        """Versions on which this process has a lease."""
        return self._leases.keys()

    def versions(self) -> dict[int, Path]:
        """Return the folders of the cached versions by number, oldest first. Raises `StoreError`."""
        return {stored.version: stored.folder for stored in list_stored(self._store, self._model)}

    def read_sums(self, version: int) -> bytes:
        """Return the SHA256SUMS of a cached version. It is empty without one."""
        with suppress(OSError):
            return read_regular(self._folder / str(version) / SHA256SUMS_FILE, MAX_SHA256SUMS_BYTES)
        return b""

    def begin(self, version: int, sums: bytes) -> Path:
        """Return the draft folder of a version. It holds SHA256SUMS, and what an earlier try with the same has left.

        Drafts of other versions are deleted. Raises `RemoteStoreError`.
        """
        draft = self._folder / f"{PULLING_PREFIX}{version}"
        with changing(self._folder):
            self._clear_leftovers(kept=draft)
            listing = draft / SHA256SUMS_FILE
            if not listing.is_file() or listing.read_bytes() != sums:
                shutil.rmtree(draft, ignore_errors=True)
                listing.parent.mkdir(parents=True)
                write_whole(listing, sums)
        return draft

    def place(self, draft: Path, version: int) -> None:
        """Give a verified draft the place of its version. A crash leaves it whole. Raises `RemoteStoreError`."""
        target = version_folder(self._store, self._model, version)
        with changing(self._folder):
            for path in (draft, *draft.rglob("*")):
                bring_to_disk(path)
            before = _hide(target)
            draft.rename(target)
            bring_to_disk(self._folder)
            shutil.rmtree(before, ignore_errors=True)

    def pin(self, version: int | None) -> None:
        """Write the pin, or remove it for None. Raises `RemoteStoreError`."""
        path = self._folder / PINNED_FILE
        content = None if version is None else f"{version}\n".encode()
        with changing(self._folder):
            if content is None:
                path.unlink(missing_ok=True)
            elif not path.is_file() or path.read_bytes() != content:
                write_whole(path, content)

    def lease(self, versions: Collection[int]) -> None:
        """Hold leases on these versions, and on no others. They end with the process. Raises `RemoteStoreError`."""
        with changing(self._folder):
            for version in set(versions) - self._leases.keys():
                descriptor = self._open_lease(version)
                if _lock(descriptor, is_shared=True):
                    self._leases[version] = descriptor
                else:  # it is being dropped, and the next look leases it
                    os.close(descriptor)
        for version in self._leases.keys() - set(versions):
            os.close(self._leases.pop(version))

    def drop(self, version: int) -> bool:
        """Delete a version unless a process has a lease on it. Return whether it is gone. Raises `RemoteStoreError`."""
        with changing(self._folder):
            descriptor = self._open_lease(version)
            try:
                if not _lock(descriptor, is_shared=False):
                    return False
                shutil.rmtree(_hide(self._folder / str(version)), ignore_errors=True)
            finally:
                os.close(descriptor)
        return True

    def _open_lease(self, version: int) -> int:
        path = self._folder / f"{_LEASE_PREFIX}{version}"  # it stays: a lock on a deleted file guards nothing
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def _clear_leftovers(self, kept: Path) -> None:
        for prefix in (PULLING_PREFIX, REMOVING_PREFIX):
            for path in self._folder.glob(f"{prefix}*"):
                if path != kept:
                    shutil.rmtree(path, ignore_errors=True)


def size_of(folder: Path) -> int:
    """Return the bytes of all files in a folder and below. A file that disappears meanwhile counts nothing."""
    num_bytes = 0
    for path in folder.rglob("*"):
        with suppress(OSError):
            num_bytes += path.lstat().st_size if path.is_file() else 0
    return num_bytes


def check_platform() -> None:
    """Raise `RemoteStoreError` where files cannot be locked, as on Windows."""
    try:
        import fcntl  # noqa: F401
    except ImportError as error:
        raise RemoteStoreError(
            "A remote store needs file locks of Linux or macOS. Copy the versions into a folder, and name that with "
            "--model-store."
        ) from error


def _lock(descriptor: int, *, is_shared: bool) -> bool:
    """Lock an open file until it is closed. Return False if another process has it."""
    import fcntl

    try:
        fcntl.flock(descriptor, (fcntl.LOCK_SH if is_shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in _TAKEN:
            return False
        raise
    return True


def _hide(folder: Path) -> Path:
    """Rename a version, so that it disappears in one step. Return its hidden folder, which may not exist."""
    hidden = folder.with_name(f"{REMOVING_PREFIX}{secrets.token_hex(8)}")
    with suppress(FileNotFoundError):
        folder.rename(hidden)
    return hidden


@contextmanager
def changing(folder: Path) -> Iterator[None]:
    """Turn an `OSError` of the block into a `RemoteStoreError` that names the folder of the cache."""
    try:
        yield
    except OSError as error:
        raise RemoteStoreError(
            f"The cache {folder} cannot be written ({error.strerror or error}). Make room there, or name another "
            "folder with --cache (FLOWERS_CACHE)."
        ) from error
