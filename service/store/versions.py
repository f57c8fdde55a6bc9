"""Versions and candidates of a store: listed, and the one that is meant."""

import os
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from service.errors import InvalidVersion, ModelNotFound, StoreError, VersionNotFound
from service.files import read_regular
from service.store.layout import (
    CANDIDATES_FOLDER,
    HIGHEST_FILE,
    PINNED_FILE,
    candidate_folder,
    candidates_folder,
    model_folder,
    parse_version,
    training_command,
    version_command,
    version_folder,
)
from service.store.verify import verify_version

_MAX_NUMBER_BYTES = 64  # of PINNED and .highest


@dataclass(frozen=True)
class StoredVersion:
    """One version in a store. `PINNED` names it if it is `pinned`. No service serves a candidate."""

    model: str
    version: int
    folder: Path
    pinned: bool
    is_candidate: bool = False


@dataclass(frozen=True)
class FoundVersion:
    """Version that a service takes, or None, and the reasons for damaged versions, newest first."""

    stored: StoredVersion | None
    damaged: dict[int, str] = field(default_factory=dict)


def list_names(store: Path) -> list[str]:
    """List the names in a store that may be models, sorted. Raises `StoreError` if the store cannot be read."""
    return sorted(entry.name for entry in _entries(store))


def list_models(store: Path) -> list[str]:
    """List the models that have a version or a candidate, sorted. Raises `StoreError` if the store cannot be read."""
    models = []
    for name in list_names(store):
        with suppress(ModelNotFound):  # not a model's name, or a link that leaves the store
            if _versions(store, name) or list_candidates(store, name):
                models.append(name)
    return models


def list_versions(store: Path, model: str) -> list[int]:
    """List the versions of a model, oldest first. Other names and links that leave the store are ignored.

    Raises `VersionNotFound` if it has candidates alone, and `ModelNotFound` if it has none either. Raises `StoreError`
    if the store cannot be read.
    """
    versions = _versions(store, model)
    if not versions and (candidates := list_candidates(store, model)):
        newest = candidates[-1].version
        take = version_command("take", model, newest)
        raise VersionNotFound(
            f"Model {model} has no version yet. Its newest candidate is {newest}. Take it with `{take}`."
        )
    if not versions:
        models = ", ".join(list_models(store)) or "none"
        raise ModelNotFound(
            f"Model {model} is not in the store {store.absolute()}, which has {models}. "
            f"Train one with `{training_command(model)}`, or name another model or store."
        )
    return versions


def resolve_version(store: Path, model: str, version: int | None = None) -> StoredVersion:
    """Return this version, else the pinned one, else the newest. It is not verified.

    Raises as `list_versions`. Raises `VersionNotFound` if this version, or the pinned one, is not there. Raises
    `InvalidVersion` if `PINNED` holds no version number, or if this version leaves the store.
    """
    versions = list_versions(store, model)
    if version is None:
        pinned = pinned_version(store, model)
        version = pinned or versions[-1]
    else:
        pinned = None
        with suppress(InvalidVersion):  # a version by number does not depend on PINNED
            pinned = pinned_version(store, model)
    folder = version_folder(store, model, version)
    if version not in versions and _has_candidate(store, model, version):
        take = version_command("take", model, version)
        raise VersionNotFound(f"Version {version} of {model} is a candidate. Take it first with `{take}`.")
    if version not in versions:
        there = ", ".join(str(number) for number in versions)
        if version == pinned:
            remedy = "Pin one of them with `flowers models use`, or `use latest`."
            raise VersionNotFound(f"Model {model} is pinned to version {version}. It has {there}. {remedy}")
        there += "".join(f", candidate {candidate.version}" for candidate in list_candidates(store, model))
        raise VersionNotFound(f"Model {model} has no version {version}. It has {there}. Name one.")
    return StoredVersion(model, version, folder, pinned=version == pinned)


def list_stored(store: Path, model: str) -> list[StoredVersion]:
    """List the versions of a model, oldest first. It may be empty. None is verified.

    A `PINNED` without a version number pins none. Raises `StoreError`.
    """
    folder, pinned = model_folder(store, model), None
    with suppress(InvalidVersion):
        pinned = pinned_version(store, model)
    return [
        StoredVersion(model, version, folder / str(version), version == pinned) for version in _versions(store, model)
    ]


def list_candidates(store: Path, model: str) -> list[StoredVersion]:
    """List the candidates of a model, oldest first. It may be empty. None is verified. Links are ignored.

    Raises `ModelNotFound` for no model's name, and `StoreError`.
    """
    try:
        folder = candidates_folder(store, model)
    except InvalidVersion:  # a link
        return []
    numbers = (parse_version(entry.name) for entry in _entries(folder) if entry.is_dir(follow_symlinks=False))
    return [
        StoredVersion(model, number, folder / str(number), pinned=False, is_candidate=True)
        for number in sorted(filter(None, numbers))
    ]


def list_in_turn(store: Path, model: str) -> list[StoredVersion]:
    """List the versions that a service tries, in turn: the pinned one alone, else all, newest first.

    None is verified. Raises as `resolve_version`.
    """
    meant = resolve_version(store, model)
    return [meant] if meant.pinned else list_stored(store, model)[::-1]


def find_served(store: Path, model: str) -> FoundVersion:
    """Find the first version of `list_in_turn` that is what was published. Read every byte of those before it.

    An engine may still refuse it. Raises as `resolve_version`.
    """
    damaged = {}
    for stored in list_in_turn(store, model):
        try:
            verify_version(stored.folder)
        except InvalidVersion as error:
            damaged[stored.version] = str(error)
        else:
            return FoundVersion(stored, damaged)
    return FoundVersion(None, damaged)


def find_version(store: Path, model: str, version: int | None = None) -> StoredVersion:
    """Return this version or candidate. Without a number return the version that a service takes, else the newest.

    The newest shows its fault when it is opened. Raises as `resolve_version`, and `InvalidVersion` for a candidate
    that is a link.
    """
    if version is None:
        return find_served(store, model).stored or resolve_version(store, model)
    if version not in _versions(store, model) and _has_candidate(store, model, version):
        folder = candidate_folder(store, model, version)
        return StoredVersion(model, version, folder, pinned=False, is_candidate=True)
    return resolve_version(store, model, version)


def pinned_version(store: Path, model: str) -> int | None:
    """Return the integer in `PINNED`, or None without the file. Raises `InvalidVersion` for other content."""
    path = model_folder(store, model) / PINNED_FILE
    if not os.path.lexists(path):
        return None
    version = _read_number(path)
    if version is None:
        raise InvalidVersion(
            f"{PINNED_FILE} of model {model} holds no version number. Pin one with `flowers models use N`, "
            "or unpin with `flowers models use latest`."
        )
    return version


def next_version(folder: Path) -> int:
    """Return the number of a model's next version or candidate. It is above every one that the model has or had."""
    # The candidates come first. One that is taken meanwhile is found among the versions.
    entries = [*_entries(folder / CANDIDATES_FOLDER), *_entries(folder)]
    taken = [parse_version(entry.name) or 0 for entry in entries]
    return max([_read_number(folder / HIGHEST_FILE) or 0, *taken]) + 1


def _has_candidate(store: Path, model: str, version: int) -> bool:
    return candidate_folder(store, model, version).is_dir()


def _versions(store: Path, model: str) -> list[int]:
    versions = []
    for entry in _entries(model_folder(store, model)):
        version = parse_version(entry.name)
        if version is None:
            continue
        if entry.is_symlink():  # others are not resolved: that costs a hundred times as much as to list them
            with suppress(InvalidVersion):  # it leaves the store
                if version_folder(store, model, version).is_dir():
                    versions.append(version)
        elif entry.is_dir(follow_symlinks=False):
            versions.append(version)
    return sorted(versions)


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise StoreError(f"{folder.absolute()} cannot be read ({error.strerror}). Allow reading it.") from error


def _read_number(path: Path) -> int | None:
    try:
        return parse_version(read_regular(path, _MAX_NUMBER_BYTES).decode("ascii", "replace").strip())
    except OSError:
        return None
