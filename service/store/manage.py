"""Changes to a store: pin a version, unpin, remove a version."""

import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from service.errors import StoreError, UsageError
from service.files import write_whole
from service.store.layout import HIGHEST_FILE, PINNED_FILE, REMOVING_PREFIX, model_folder
from service.store.versions import find_served, list_versions, next_version, resolve_version


def pin_version(store: Path, model: str, version: int) -> None:
    """Serve this version until it is unpinned. A reader sees the old pin or the new one.

    Raises as `resolve_version`, or `StoreError` if the store cannot be written.
    """
    folder = resolve_version(store, model, version).folder.parent
    with _writing(folder):
        write_whole(folder / PINNED_FILE, f"{version}\n".encode())


def unpin(store: Path, model: str) -> None:
    """Serve the newest version again. Raises `StoreError`."""
    list_versions(store, model)
    folder = model_folder(store, model)
    with _writing(folder):
        (folder / PINNED_FILE).unlink(missing_ok=True)


def remove_version(store: Path, model: str, version: int, *, force: bool = False) -> None:
    """Delete a version. Its number is never given again. It disappears at once, before its files are deleted.

    Raises `UsageError` without `force` if it is pinned or served, `StoreError`, or as `resolve_version`.
    """
    stored = resolve_version(store, model, version)
    if not force and (stored.pinned or find_served(store, model).stored == stored):
        state = "pinned" if stored.pinned else "the one that is served"
        raise UsageError(
            f"Version {version} of {model} is {state}. Take another first with "
            "`flowers models use`, or remove it all the same with --force."
        )
    folder = stored.folder.parent
    with _writing(folder):
        if version == next_version(folder) - 1:
            write_whole(folder / HIGHEST_FILE, f"{version}\n".encode())
        if stored.pinned:
            (folder / PINNED_FILE).unlink()
        doomed = stored.folder.rename(folder / f"{REMOVING_PREFIX}{secrets.token_hex(8)}")
        if doomed.is_symlink():
            doomed.unlink()
        else:
            shutil.rmtree(doomed)


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StoreError(
            f"{folder.absolute()} cannot be changed ({error.strerror or error}). Allow writing there."
        ) from error
