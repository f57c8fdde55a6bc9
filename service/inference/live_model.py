"""The live version of a model: opened, warmed up, switched to.

A switch is one assignment on the event loop's thread. A request keeps its version until it is answered.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import structlog

from service.engines.choose import check_device
from service.engines.engine import Engine
from service.engines.open_version import ServedVersion, open_version
from service.engines.wish import EngineWish
from service.errors import DeviceUnavailable, FlowersError, NotReady, SettingsError, StoreError
from service.inference.health import Health
from service.inference.threads import step_back
from service.store.snapshot import StoreScanner, StoreSnapshot
from service.store.verify import VerifiedVersion, verify_version
from service.store.versions import StoredVersion
from service.store.watch import Refusal, StoreWatch, Taken

R = TypeVar("R")

_ANY_ENGINE = EngineWish()
_NICENESS_OF_RELOADS = 15  # behind the lanes, too; the first version is waited for

log: structlog.typing.FilteringBoundLogger = structlog.get_logger()


class LiveModel:
    """Holder of the version that a process serves.

    By itself it follows the store. In a worker the supervisor does, and says which version to open and when to switch.

    Args:
        store, model: The versions are in `<store>/<model>`. It need not exist yet.
        wish: It is checked before the first version is looked for.
        load: Loader of the engine, called on a thread. None means `load_engine`.
        max_batch_size: Largest batch to warm up.
        on_fatal: Called with an error that no other version can mend, such as a missing device.
        follows_store: Whether `start` makes it look for versions by itself.
    """

    def __init__(
        self,
        store: Path,
        model: str,
        *,
        wish: EngineWish = _ANY_ENGINE,
        load: Callable[[VerifiedVersion, EngineWish], Engine] | None = None,
        health: Health,
        max_batch_size: int,
        reload_interval_s: float,
        on_fatal: Callable[[FlowersError], None] = lambda _: None,
        follows_store: bool = True,
    ) -> None:
        self.store = store
        self.model = model
        self.current: ServedVersion | None = None
        self.snapshot: StoreSnapshot | None = None  # at the last look that could read the store
        self.watch = StoreWatch(store, model, self._take, self.report_waiting, self._on_thread)
        self._opened: ServedVersion | None = None
        self._scanner = StoreScanner(store)
        self._wish, self._load = wish, load
        self.health = health
        self._max_batch_size = max_batch_size
        self._reload_interval_s = reload_interval_s
        self._on_fatal = on_fatal
        self._follows_store = follows_store
        self._looking = asyncio.Lock()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="load-model")
        self._again_and_again: asyncio.Task[None] | None = None

    def require(self) -> ServedVersion:
        """Return the live version, which stays open within its `in_use`. Raises `NotReady` with the reasons."""
        if self.current is None or self.health.is_blocked:
            raise NotReady(f"No model can answer. {' '.join(self.health.reasons)} Send it again later.")
        return self.current

    def min_queue_size(self) -> int:
        """Return how many images must be able to wait, by the live engine. It is 1 without one."""
        return self.current.engine.min_queue_size if self.current is not None else 1

    def start(self) -> None:
        """Start to scan the store, on the running event loop."""
        self._again_and_again = asyncio.create_task(self._look_again_and_again())

    async def stop(self) -> None:
        """Stop scanning and close the engine. A load in progress is not awaited."""
        if self._again_and_again is not None:
            self._again_and_again.cancel()
            await asyncio.wait([self._again_and_again])
        self._thread.shutdown(wait=False, cancel_futures=True)
        self.forget()
        if self.current is not None:
            self.current.retire()

    async def look(self) -> None:
        """Scan the store once, and switch to the first version in turn that is good and not live yet."""
        async with self._looking:
            await self.scan()
            await self.watch.look()

    async def scan(self) -> None:
        """Read the store for `GET /models`. A store that cannot be read leaves the last snapshot."""
        with suppress(StoreError):  # the search for versions reports it
            self.snapshot = await self._on_thread(self._scanner.scan)

    async def open(self, stored: StoredVersion) -> Taken | Refusal:
        """Verify, load and warm up a version beside the live one. `switch` or `forget` comes next."""
        self.forget()
        try:
            self._opened = await self._on_thread(self._verify_and_open, stored)
        except Exception as error:
            if isinstance(error, DeviceUnavailable | SettingsError) and self.current is None:
                self._on_fatal(error)
            return Refusal.of(error)
        info = self._opened.engine.info
        return Taken(info.to_dict(), info.warning)

    async def switch(self) -> None:
        """Serve the opened version from now on. The version before is closed after its last use."""
        assert self._opened is not None, "open a version first"
        previous, self.current, self._opened = self.current, self._opened, None
        self.health.is_started = True
        self.health.clear("model")
        if previous is not None:
            previous.retire()
        else:
            await self._on_thread(step_back, _NICENESS_OF_RELOADS)

    def forget(self) -> None:
        """Close the opened version, if there is one. The live version stays."""
        if self._opened is not None:
            self._opened.retire()
            self._opened = None

    def report_waiting(self, reason: str) -> None:
        """Say why no version is live yet. It has no effect when one is."""
        if self.current is None:
            self.health.block("model", reason)

    async def _take(self, stored: StoredVersion) -> Taken | Refusal:
        outcome = await self.open(stored)
        if isinstance(outcome, Taken):
            await self.switch()
        return outcome

    def _verify_and_open(self, stored: StoredVersion) -> ServedVersion:
        """Verify and load a version on the loading thread. Nothing is loaded before its digests agree."""
        verified = verify_version(stored.folder)
        return open_version(verified, self._wish, max_batch_size=self._max_batch_size, load=self._load)

    async def _on_thread(self, function: Callable[..., R], *args: Any) -> R:
        return await asyncio.get_running_loop().run_in_executor(self._thread, function, *args)

    async def _look_again_and_again(self) -> None:
        try:
            await self.scan()  # GET /models need not wait for the device
            await self._on_thread(check_device, self._wish)
        except FlowersError as error:
            self._on_fatal(error)
            return
        except Exception:
            log.exception("device check failed")  # the scans must outlive any surprise
        while True:
            try:
                await (self.look() if self._follows_store else self.scan())
            except Exception:
                log.exception("store scan failed")  # the scans must outlive any surprise
            await asyncio.sleep(self.watch.pause_s(self._reload_interval_s))
