"""Changes to a store: pin a version, unpin, remove a version or a candidate."""

import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from service.errors import StoreError, UsageError
from service.files import write_whole
from service.store.layout import CANDIDATES_FOLDER, HIGHEST_FILE, PINNED_FILE, REMOVING_PREFIX, model_folder
from service.store.versions import find_served, find_version, list_versions, next_version, resolve_version


def pin_version(store: Path, model: str, version: int) -> None:
    """Serve this version until it is unpinned. A reader sees the old pin or the new one.

    Raises as `resolve_version`, or `StoreError` if the store cannot be written.
    """
    folder = resolve_version(store, model, version).folder.parent
    with changing(folder):
        write_whole(folder / PINNED_FILE, f"{version}\n".encode())


def unpin(store: Path, model: str) -> None:
    """Serve the newest version again. Raises `StoreError`."""
    list_versions(store, model)
    folder = model_folder(store, model)
    with changing(folder):
        (folder / PINNED_FILE).unlink(missing_ok=True)


def remove_version(store: Path, model: str, version: int, *, force: bool = False) -> None:
    """Delete a version or a candidate. Its number is never given again. It disappears before its files are deleted.

    Raises `UsageError` without `force` if it is pinned or served, `StoreError`, or as `find_version`.
    """
    stored = find_version(store, model, version)
    if not (force or stored.is_candidate) and (stored.pinned or find_served(store, model).stored == stored):
        state = "pinned" if stored.pinned else "the one that is served"
        raise UsageError(
            f"Version {version} of {model} is {state}. Serve another first with "
            "`flowers models use`, or remove it all the same with --force."
        )
    folder = model_folder(store, model)
    with changing(folder):
        if version == next_version(folder) - 1:
            write_whole(folder / HIGHEST_FILE, f"{version}\n".encode())
        if stored.pinned:
            (folder / PINNED_FILE).unlink()
        doomed = stored.folder.rename(folder / f"{REMOVING_PREFIX}{secrets.token_hex(8)}")
        if doomed.is_symlink():
            doomed.unlink()
        else:
            shutil.rmtree(doomed)
    if stored.is_candidate:
        tidy_candidates(folder)


def tidy_candidates(folder: Path) -> None:
    """Remove the folder of a model's candidates if it is empty."""
    with suppress(OSError):
        (folder / CANDIDATES_FOLDER).rmdir()


@contextmanager
def changing(folder: Path) -> Iterator[None]:
    """Turn an `OSError` of the block into a `StoreError` that names the folder."""
    try:
        yield
    except OSError as error:
        raise StoreError(
            f"{folder.absolute()} cannot be changed ({error.strerror or error}). Allow writing there."
        ) from error
