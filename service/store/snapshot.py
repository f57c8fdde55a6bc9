"""Snapshot of a store, for answers about models without a read of files."""

import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from service.errors import InvalidVersion, StoreError
from service.files import FileStamp, stamp_file
from service.store.layout import METADATA_FILE
from service.store.metadata import Metadata, read_metadata
from service.store.versions import StoredVersion, list_names, list_stored


@dataclass(frozen=True)
class ListedVersion:
    """Version by its own, unverified metadata. Without them `created` and `accuracy` are None."""

    version: int
    pinned: bool
    created: datetime | None
    accuracy: float | None


@dataclass(frozen=True)
class ListedModel:
    """Model with its versions, oldest first. `card` is the newest metadata that can be read, if any."""

    versions: tuple[ListedVersion, ...] = ()
    card: Metadata | None = None
    card_version: int | None = None


StoreSnapshot = Mapping[str, ListedModel]
"""Models of a store by name, at one moment."""


@dataclass(frozen=True)
class _Known:
    """Content of a metadata.json with this stamp. Only the newest readable one of a model has its card."""

    stamp: FileStamp
    created: datetime | None = None
    accuracy: float | None = None
    card: Metadata | None = None


class StoreScanner:
    """Maker of snapshots of a store. It reads metadata again only if they changed."""

    def __init__(self, store: Path) -> None:
        self._store = store
        self._known: dict[str, _Known] = {}

    def scan(self) -> StoreSnapshot:
        """Read names, pins and changed metadata. A model whose folder cannot be read is left out.

        Raises `StoreError` if the store itself cannot be read.
        """
        known: dict[str, _Known] = {}
        models = {}
        for name in list_names(self._store):
            with suppress(StoreError):
                if stored_versions := list_stored(self._store, name):
                    models[name] = self._describe(stored_versions, known)
        self._known = known
        return models

    def _describe(self, stored_versions: list[StoredVersion], known: dict[str, _Known]) -> ListedModel:
        listed: list[ListedVersion] = []
        card, card_version = None, None
        for stored in reversed(stored_versions):
            path = os.path.join(stored.folder, METADATA_FILE)  # noqa: PTH118 - a third of the time
            created, accuracy = None, None
            if found := self._look_at(path, wants_card=card is None):
                known[path] = found
                created, accuracy = found.created, found.accuracy
                if card is None and found.card is not None:
                    card, card_version = found.card, stored.version
            listed.append(ListedVersion(stored.version, stored.pinned, created, accuracy))
        return ListedModel(tuple(reversed(listed)), card, card_version)

    def _look_at(self, path: str, *, wants_card: bool) -> _Known | None:
        """Return the content of a metadata.json, or None without such a file."""
        try:
            stamp = stamp_file(path)
        except OSError:
            return None
        known = self._known.get(path)
        if known is not None and known.stamp == stamp:
            if wants_card == (known.card is not None) or known.created is None:
                return known
            if not wants_card:
                return replace(known, card=None)
        try:
            metadata = read_metadata(Path(path))
        except InvalidVersion:
            return _Known(stamp)
        return _Known(stamp, metadata.created, metadata.stated_accuracy, metadata if wants_card else None)
