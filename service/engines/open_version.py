"""A version with its engine, open for as long as somebody uses it."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from service.engines.engine import Engine
from service.imaging.pixels import ResizeRule
from service.store.metadata import Metadata


class LoadedVersion:
    """A verified version and its warm engine. Used on the event loop's thread only: no locks.

    Attributes:
        model, version: as in the store.
        metadata: class names, threshold and all that the version says of itself.
        rule: how its pictures become square.
        engine: not to be called after `retire`, except within `in_use`.
    """

    def __init__(self, model: str, version: int, metadata: Metadata, engine: Engine) -> None:
        self.model = model
        self.version = version
        self.metadata = metadata
        self.rule = ResizeRule(metadata.preprocessing.image_size, metadata.preprocessing.shorter_side)
        self.engine = engine
        self._num_users = 0
        self._is_retired = False
        self._is_closing = False

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """The engine stays open within."""
        self._num_users += 1
        try:
            yield
        finally:
            self._num_users -= 1
            self._close_if_unused()

    def retire(self) -> None:
        """Close the engine once its last user has gone; at once if there is none."""
        self._is_retired = True
        self._close_if_unused()

    def _close_if_unused(self) -> None:
        if self._is_retired and not self._num_users and not self._is_closing:
            self._is_closing = True
            # On a thread: giving hundreds of megabytes back would hold up the event loop.
            try:
                threading.Thread(target=self.engine.close, name="close-engine", daemon=True).start()
            except (RuntimeError, MemoryError):  # no thread can be had, and whoever used the engine is not at fault
                self.engine.close()
