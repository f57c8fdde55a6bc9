"""A snapshot of a store: what is answered about models without touching a file."""

import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from service.errors import InvalidVersion, StoreError
from service.files import FileStamp, stamp_file
from service.store.layout import METADATA_FILE
from service.store.metadata import Metadata, read_metadata
from service.store.versions import StoredVersion, list_names, list_stored


@dataclass(frozen=True)
class ListedVersion:
    """One version as its own metadata describe it. It need not be verified.

    Attributes:
        version: its number.
        pinned: whether `PINNED` names it.
        created: when it was made. None where its metadata cannot be read.
        accuracy: the stated one. None where none is stated, or its metadata cannot be read.
    """

    version: int
    pinned: bool
    created: datetime | None
    accuracy: float | None


@dataclass(frozen=True)
class ListedModel:
    """One model of a store.

    Attributes:
        versions: oldest first.
        card: the metadata of `card_version`, the newest version whose metadata can be read.
        card_version: None where there is no such version.
    """

    versions: tuple[ListedVersion, ...] = ()
    card: Metadata | None = None
    card_version: int | None = None


@dataclass(frozen=True)
class StoreSnapshot:
    """The models of a store by name, at one moment."""

    models: Mapping[str, ListedModel] = field(default_factory=dict)


@dataclass(frozen=True)
class _Known:
    """What was read of one metadata.json, good for as long as its stamp stays."""

    stamp: FileStamp
    created: datetime | None = None
    accuracy: float | None = None

    @property
    def is_readable(self) -> bool:
        return self.created is not None


class StoreScanner:
    """Makes snapshots of a store. Metadata that did not change are not read again.

    Of all versions but one of each model only date and accuracy are kept.

    Args:
        store: the folder of the models.
    """

    def __init__(self, store: Path) -> None:
        self._store = store
        self._known: dict[str, _Known] = {}
        self._cards: dict[str, Metadata] = {}

    def scan(self) -> StoreSnapshot:
        """Read names, pins, and new or changed metadata.

        A model whose folder cannot be read is left out.

        Raises:
            StoreError: the store itself cannot be read.
        """
        known: dict[str, _Known] = {}
        cards: dict[str, Metadata] = {}
        models = {}
        for name in list_names(self._store):
            with suppress(StoreError):
                if stored_versions := list_stored(self._store, name):
                    models[name] = self._describe(stored_versions, known, cards)
        self._known, self._cards = known, cards
        return StoreSnapshot(models)

    def _describe(
        self, stored_versions: list[StoredVersion], known: dict[str, _Known], cards: dict[str, Metadata]
    ) -> ListedModel:
        listed: list[ListedVersion] = []
        card, card_version = None, None
        for stored in reversed(stored_versions):
            path = os.path.join(stored.folder, METADATA_FILE)  # noqa: PTH118 - a third of the time
            found = self._look_at(path, cards, wants_card=card is None)
            if found is not None:
                known[path] = found
            if card is None and path in cards:
                card, card_version = cards[path], stored.version
            created, accuracy = (found.created, found.accuracy) if found else (None, None)
            listed.append(ListedVersion(stored.version, stored.pinned, created, accuracy))
        return ListedModel(tuple(reversed(listed)), card, card_version)

    def _look_at(self, path: str, cards: dict[str, Metadata], *, wants_card: bool) -> _Known | None:
        """Return None where there is no metadata.json. The whole of it goes into `cards` where that is wanted."""
        try:
            stamp = stamp_file(path)
        except OSError:
            return None
        known = self._known.get(path)
        if known is not None and known.stamp == stamp:
            if not (wants_card and known.is_readable):
                return known
            if path in self._cards:
                cards[path] = self._cards[path]
                return known
        try:
            metadata = read_metadata(Path(path))
        except InvalidVersion:
            return _Known(stamp)
        if wants_card:
            cards[path] = metadata
        return _Known(stamp, metadata.created, metadata.stated_accuracy)
