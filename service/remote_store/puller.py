"""Puller of a replica: the thread that mirrors the remote store while the service answers."""

import logging
import threading
from pathlib import Path
from typing import Any

import structlog

from service.errors import ModelNotFound, StoreError
from service.remote_store.cache import ModelCache, check_platform
from service.remote_store.location import StoreUrl
from service.remote_store.mirror import Mirror, PullStopped
from service.remote_store.reader import open_reader
from service.store.watch import StoreWatch

_MAX_WAIT_S = 60.0  # between two tries to reach the remote store, unless the interval is longer

log: structlog.typing.FilteringBoundLogger = structlog.get_logger()


def make_puller(store: Path | StoreUrl, watch: StoreWatch, *, interval_s: float, max_bytes: int) -> "Puller | None":
    """Return the puller of a remote store, or None for a folder. Raises as `Puller`."""
    if isinstance(store, Path):
        return None
    return Puller(store, watch, interval_s=interval_s, max_bytes=max_bytes)


class Puller:
    """Thread that pulls what a watch of the cache wants. There is one for all workers of a replica.

    It uses the network only, and never the event loop. Without the remote store the cache is served.

    Args:
        url: The remote store.
        watch: Watch of the replica. Its store is the cache, and its live version is never dropped.
        interval_s: Time between scans of the remote store, in seconds.
        max_bytes: Limit of the cached versions.

    Raises `SettingsError` or `RemoteStoreError` if this machine lacks what it needs.
    """

    def __init__(self, url: StoreUrl, watch: StoreWatch, *, interval_s: float, max_bytes: int) -> None:
        check_platform()
        self._url = url
        self._watch = watch
        self._interval_s = interval_s
        self._ended = threading.Event()
        self._mirror = Mirror(
            open_reader(url),
            ModelCache(watch.store, watch.model),
            watch.model,
            max_bytes,
            retry_s=interval_s,
            is_stopping=self._ended.is_set,
            report=self._log,
        )
        self._reason = "The remote store is being read."
        self._trouble = ""
        watch.explain_missing = self._explain

    def start(self) -> None:
        """Start the thread. It does not keep the process from its end."""
        threading.Thread(target=self._look_again_and_again, name="pull", daemon=True).start()

    def stop(self) -> None:
        """Tell the thread to end. It is not awaited."""
        self._ended.set()

    def _explain(self) -> str:
        return f"No version of {self._watch.model} is in the cache yet. {self._reason}"

    def _look_again_and_again(self) -> None:
        num_failures = 0
        while True:
            try:
                self._look()
                num_failures = 0
            except PullStopped:
                return
            except ModelNotFound as error:  # the first version may come at any time
                self._report(error, "The remote store has none. Publish one there.")
            except StoreError as error:
                num_failures += 1
                self._report(error, "The remote store cannot be read. See the service's log.")
            except Exception:
                num_failures += 1
                log.exception("store pull failed")  # the thread must outlive any surprise
            wait_s = self._interval_s * 2 ** min(num_failures, 10)
            if self._ended.wait(min(wait_s, max(self._interval_s, _MAX_WAIT_S))):
                return

    def _look(self) -> None:
        model = self._mirror.look(self._watch.in_use, tuple(self._watch.refused))
        if self._trouble:
            log.info("remote store available", url=str(self._url))
            self._trouble = ""
        if model is None:
            self._reason = "Another process on this machine pulls it."
        elif refused := self._mirror.refused:
            newest = max(refused)
            self._reason = f"Version {newest} was not pulled. {refused[newest]}"

    def _log(self, event: str, **fields: Any) -> None:
        level = logging.ERROR if event == "version not pulled" else logging.INFO
        log.log(level, event, model=self._watch.model, **fields)

    def _report(self, error: StoreError, reason: str) -> None:
        self._reason = reason
        if str(error) != self._trouble:
            self._trouble = str(error)
            log.warning("remote store unavailable", url=str(self._url), reason=str(error), live=self._watch.in_use)
