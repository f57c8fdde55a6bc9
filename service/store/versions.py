"""Which models and versions a store has, and which one is meant; pinning and removing them."""

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from service.errors import InvalidVersion, ModelNotFound, StoreError, UsageError, VersionNotFound
from service.files import read_regular
from service.store.layout import (
    HIGHEST_FILE,
    PINNED_FILE,
    REMOVING_PREFIX,
    WRITING_PREFIX,
    model_folder,
    parse_version,
    training_command,
    version_folder,
)
from service.store.verify import verify_version

_MAX_NUMBER_BYTES = 64  # of PINNED and .highest


@dataclass(frozen=True)
class StoredVersion:
    """One version in a store; `pinned` says whether `PINNED` names it."""

    model: str
    version: int
    folder: Path
    pinned: bool


@dataclass(frozen=True)
class Served:
    """What a service takes of a model: `stored`, or None; `damaged`: version -> why it is passed over, newest first."""

    stored: StoredVersion | None
    damaged: dict[int, str] = field(default_factory=dict)


def list_names(store: Path) -> list[str]:
    """The names in a store that may be models, sorted. Raises `StoreError` if the store cannot be read."""
    return sorted(_names(store))


def list_models(store: Path) -> list[str]:
    """The models that have a version, by name; none for a store that does not exist.

    Raises:
        StoreError: the store cannot be read.
    """
    models = []
    for name in list_names(store):
        with suppress(ModelNotFound):  # not a model's name, or a link that leaves the store
            if _versions(store, name):
                models.append(name)
    return models


def list_versions(store: Path, model: str) -> list[int]:
    """The versions of a model, oldest first. Every other name is ignored, as are links that leave the store.

    Raises:
        ModelNotFound: there is no such model, or it has no version.
        StoreError: the store cannot be read.
    """
    versions = _versions(store, model)
    if not versions:
        models = ", ".join(list_models(store)) or "none"
        raise ModelNotFound(
            f"no model {model} in the store {store.absolute()}, which has {models}: "
            f"train one with `{training_command(model)}`, or name another model or store"
        )
    return versions


def resolve_version(store: Path, model: str, version: int | None = None) -> StoredVersion:
    """The version that is meant: the one asked for, else the pinned one, else the newest. It is not verified.

    Raises:
        ModelNotFound: as `list_versions`.
        VersionNotFound: the version asked for, or the pinned one, is not there.
        InvalidVersion: `PINNED` holds no version number, or the version asked for leaves the store.
    """
    versions = list_versions(store, model)
    if version is None:
        pinned = pinned_version(store, model)
        version = pinned or versions[-1]
    else:
        pinned = None
        with suppress(InvalidVersion):  # who asks for a version by number does not depend on PINNED
            pinned = pinned_version(store, model)
    folder = version_folder(store, model, version)
    if version not in versions:
        state = "is pinned to" if version == pinned else "has no"
        there = ", ".join(str(number) for number in versions)
        remedy = ": pin one of them with `flowers models use`, or `use latest`" if version == pinned else ""
        raise VersionNotFound(f"model {model} {state} version {version}; there is {there}{remedy}")
    return StoredVersion(model, version, folder, pinned=version == pinned)


def list_stored(store: Path, model: str) -> list[StoredVersion]:
    """The versions of a model, oldest first, with their folders; none where there is no such model. None is verified.

    A `PINNED` without a version number pins none.

    Raises:
        ModelNotFound: no model can have this name.
        StoreError: the store cannot be read.
    """
    folder, pinned = model_folder(store, model), None
    with suppress(InvalidVersion):
        pinned = pinned_version(store, model)
    return [
        StoredVersion(model, version, folder / str(version), version == pinned) for version in _versions(store, model)
    ]


def list_candidates(store: Path, model: str) -> list[StoredVersion]:
    """What a service tries, best first: the pinned version alone, else all from the newest down. None is verified.

    Raises:
        ModelNotFound, VersionNotFound, InvalidVersion: as `resolve_version`.
    """
    meant = resolve_version(store, model)
    return [meant] if meant.pinned else list_stored(store, model)[::-1]


def find_served(store: Path, model: str) -> Served:
    """The first candidate that is what was published; reads every byte of it, and of those before it.

    Whether an engine can run it only loading it tells.

    Raises:
        ModelNotFound, VersionNotFound, InvalidVersion: as `resolve_version`.
    """
    damaged = {}
    for stored in list_candidates(store, model):
        try:
            verify_version(stored.folder)
        except InvalidVersion as error:
            damaged[stored.version] = str(error)
        else:
            return Served(stored, damaged)
    return Served(None, damaged)


def find_version(store: Path, model: str, version: int | None = None) -> StoredVersion:
    """The version asked for, else what a service takes; the newest where none is sound, for its fault to be said.

    Raises:
        ModelNotFound, VersionNotFound, InvalidVersion: as `resolve_version`.
    """
    served = find_served(store, model).stored if version is None else None
    return served or resolve_version(store, model, version)


def pinned_version(store: Path, model: str) -> int | None:
    """The integer in `PINNED`, whether there is such a version or not; None without the file.

    Raises:
        ModelNotFound: no model can have this name.
        InvalidVersion: the file cannot be read, or holds something else.
    """
    path = model_folder(store, model) / PINNED_FILE
    if not os.path.lexists(path):
        return None
    version = _read_number(path)
    if version is None:
        raise InvalidVersion(
            f"{PINNED_FILE} of model {model} holds no version number: pin one with `flowers models use N`, "
            "or unpin with `flowers models use latest`"
        )
    return version


def pin_version(store: Path, model: str, version: int) -> None:
    """Make `version` the one to serve until it is unpinned; readers see the old pin or the new one.

    Raises:
        ModelNotFound, VersionNotFound, InvalidVersion: as `resolve_version`.
        StoreError: the store cannot be written.
    """
    stored = resolve_version(store, model, version)
    with _writing(store / model):
        _write_number(stored.folder.parent / PINNED_FILE, version)


def unpin(store: Path, model: str) -> None:
    """Serve the newest version again. Raises `ModelNotFound`, or `StoreError` if it cannot be written."""
    list_versions(store, model)
    with _writing(store / model):
        (model_folder(store, model) / PINNED_FILE).unlink(missing_ok=True)


def remove_version(store: Path, model: str, version: int, *, force: bool = False) -> None:
    """Delete a version; its number is never given again. It disappears at once, before its files are deleted.

    Args:
        force: delete it even if it is pinned or the one that `find_served` finds, and its pin with it.

    Raises:
        UsageError: it is pinned or the one that is served, and `force` is false.
        ModelNotFound, VersionNotFound, InvalidVersion: as `resolve_version`.
        StoreError: the store cannot be written.
    """
    stored = resolve_version(store, model, version)
    if not force and (stored.pinned or find_served(store, model).stored == stored):
        state = "pinned" if stored.pinned else "the one that is served"
        raise UsageError(
            f"version {version} of {model} is {state}: take another first with "
            "`flowers models use`, or remove it all the same with --force"
        )
    folder = stored.folder.parent
    with _writing(store / model):
        if version == next_version(folder) - 1:
            _write_number(folder / HIGHEST_FILE, version)
        if stored.pinned:
            (folder / PINNED_FILE).unlink()
        doomed = stored.folder.rename(folder / f"{REMOVING_PREFIX}{secrets.token_hex(8)}")
        if doomed.is_symlink():
            doomed.unlink()
        else:
            shutil.rmtree(doomed)


def next_version(folder: Path) -> int:
    """The number that a model's next version gets: above every one that it has or had."""
    taken = [parse_version(name) or 0 for name in _names(folder)]
    return max([_read_number(folder / HIGHEST_FILE) or 0, *taken]) + 1


def _versions(store: Path, model: str) -> list[int]:
    """Of the names only links are resolved: that costs a hundred times as much as to list them."""
    folder = model_folder(store, model)
    versions = []
    for entry in _entries(folder):
        version = parse_version(entry.name)
        if version is None:
            continue
        if entry.is_symlink():
            with suppress(InvalidVersion):  # it leaves the store
                if version_folder(store, model, version).is_dir():
                    versions.append(version)
        elif entry.is_dir(follow_symlinks=False):
            versions.append(version)
    return sorted(versions)


def _names(folder: Path) -> list[str]:
    return [entry.name for entry in _entries(folder)]


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise StoreError(f"{folder.absolute()} cannot be read: {error.strerror}; allow reading it") from error


def _read_number(path: Path) -> int | None:
    try:
        return parse_version(read_regular(path, _MAX_NUMBER_BYTES).decode("ascii", "replace").strip())
    except OSError:
        return None


def _write_number(path: Path, number: int) -> None:
    """Written beside and renamed: a reader, or a crash, never sees half a number."""
    beside = path.with_name(f"{WRITING_PREFIX}{secrets.token_hex(8)}")
    try:
        with beside.open("w", encoding="ascii") as file:
            file.write(f"{number}\n")
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StoreError(
            f"{folder.absolute()} cannot be changed: {error.strerror or error}; allow writing there"
        ) from error
