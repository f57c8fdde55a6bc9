"""The live version of a model. It follows the store: watch, verify, load, warm up, switch.

A switch is one assignment on the event loop's thread. A request keeps its version until it is answered.
"""

import asyncio
import hashlib
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
from service.errors import (
    ChangedVersion,
    DeviceUnavailable,
    FlowersError,
    ModelNotFound,
    NotReady,
    SettingsError,
    StoreError,
    is_out_of_memory,
)
from service.files import UnfitFile, stamp_file
from service.inference.health import Health
from service.inference.threads import step_back
from service.store.layout import training_command
from service.store.snapshot import StoreScanner, StoreSnapshot
from service.store.verify import VerifiedVersion, verify_version
from service.store.versions import StoredVersion, list_in_turn

R = TypeVar("R")

_ANY_ENGINE = EngineWish()
_NICENESS_OF_RELOADS = 15  # behind the lanes, too; the first version is waited for

log: structlog.typing.FilteringBoundLogger = structlog.get_logger()


class LiveModel:
    """Holder of the version to serve: the pinned one, else the newest that is good.

    Args:
        store, model: The folder to watch is `<store>/<model>`. It need not exist yet.
        wish: It is checked before the first version is looked for.
        load: Loader of the engine, called on a thread. None means `load_engine`.
        max_batch_size: Largest batch to warm up.
        on_fatal: Called with an error that no other version can mend, such as a missing device.
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
    ) -> None:
        self.store = store
        self.model = model
        self.current: ServedVersion | None = None
        self.refused: dict[int, str] = {}  # version -> why it is not served
        self.snapshot: StoreSnapshot | None = None  # at the last look that could read the store
        self._scanner = StoreScanner(store)
        self.num_loaded = 0
        self.num_refused = 0
        self._wish, self._load = wish, load
        self.health = health
        self._max_batch_size = max_batch_size
        self._reload_interval_s = reload_interval_s
        self._on_fatal = on_fatal
        self._fingerprints: dict[int, str] = {}  # what a version's files looked like when it was last tried
        self._empty_because = ""
        self._looking = asyncio.Lock()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="load-model")
        self._watch: asyncio.Task[None] | None = None

    def require(self) -> ServedVersion:
        """Return the live version, which stays open within its `in_use`. Raises `NotReady` with the reasons."""
        if self.current is None or self.health.is_blocked:
            raise NotReady(f"No model can answer. {' '.join(self.health.reasons)} Send it again later.")
        return self.current

    def min_queue_size(self) -> int:
        """Return how many images must be able to wait, by the live engine. It is 1 without one."""
        return self.current.engine.min_queue_size if self.current is not None else 1

    def start(self) -> None:
        """Start to watch the store, on the running event loop."""
        self._watch = asyncio.create_task(self._look_again_and_again())

    async def stop(self) -> None:
        """Stop watching and close the engine. A load in progress is not awaited."""
        if self._watch is not None:
            self._watch.cancel()
            await asyncio.wait([self._watch])
        self._thread.shutdown(wait=False, cancel_futures=True)
        if self.current is not None:
            self.current.retire()

    async def look(self) -> None:
        """Scan the store once, and switch to the first version in turn that is good and not live yet."""
        async with self._looking:
            await self._scan()
            try:
                in_use = self.current.version if self.current else None
                wanted = await self._on_thread(_wanted_versions, self.store, self.model, in_use)
            except StoreError as error:
                self._report_empty(error)
                return
            self._empty_because = ""
            for stored, fingerprint in wanted:
                is_current = self.current is not None and stored.version == self.current.version
                is_settled = self._fingerprints.get(stored.version) == fingerprint
                if not (is_settled and (is_current or stored.version in self.refused)):
                    self._fingerprints[stored.version] = fingerprint
                    if await self._try(stored):
                        return
                if is_current:
                    return  # nothing newer was good: this one stays live, even if its files are corrupt by now
            if self.current is None:
                newest = wanted[0][0].version
                self.health.block("model", f"Version {newest} was refused. {self.refused[newest]}")

    async def _scan(self) -> None:
        with suppress(StoreError):  # the search for versions reports it
            self.snapshot = await self._on_thread(self._scanner.scan)

    async def _try(self, stored: StoredVersion) -> bool:
        if self.current is None:
            self.health.block("model", f"Version {stored.version} of {stored.model} is being loaded.")
        try:
            loaded = await self._on_thread(self._open, stored)
        except Exception as error:
            self._refuse(stored, error)
            return False
        previous, self.current = self.current, loaded
        self.refused.pop(stored.version, None)
        self.num_loaded += 1
        self.health.is_started = True
        self.health.clear("model")
        if previous is not None:
            previous.retire()
        info = loaded.engine.info
        log.info("model loaded", model=loaded.model, version=loaded.version, pinned=stored.pinned, **info.to_dict())
        if info.warning:
            log.warning("engine warning", model=loaded.model, version=loaded.version, warning=info.warning)
        if previous is None:
            await self._on_thread(step_back, _NICENESS_OF_RELOADS)
        return True

    def _open(self, stored: StoredVersion) -> ServedVersion:
        """Verify and load a version on the loading thread. Nothing is loaded before its digests agree."""
        verified = verify_version(stored.folder)
        return open_version(verified, self._wish, max_batch_size=self._max_batch_size, load=self._load)

    def _refuse(self, stored: StoredVersion, error: Exception) -> None:
        if isinstance(error, DeviceUnavailable | SettingsError) and self.current is None:
            self._on_fatal(error)
        if _may_pass(error):
            del self._fingerprints[stored.version]  # a network drive may come back
        is_ours = isinstance(error, FlowersError)
        reason = str(error) if is_ours else "It could not be loaded. See the service's log."
        for store in (self.store.absolute(), self.store):
            reason = reason.replace(f"{store}/", "")  # a client sees it
        if self.refused.get(stored.version) == reason:
            return
        self.refused[stored.version] = reason
        self.num_refused += 1
        log.error(
            "version refused", model=stored.model, version=stored.version, reason=str(error) or repr(error),
            cause=repr(error.__cause__)[:400] if error.__cause__ else None,
            still_live=self.current.version if self.current else None, exc_info=None if is_ours else error,
        )  # fmt: skip

    def _report_empty(self, error: StoreError) -> None:
        if str(error) != self._empty_because:
            self._empty_because = str(error)
            log.warning("model missing", folder=str(self.store.absolute() / self.model), reason=str(error))
        if self.current is None:
            watched = f"{self.store.absolute().name}/{self.model}"
            if isinstance(error, ModelNotFound):
                train = training_command(self.model)
                reason = f"There is no version in {watched}, which the service watches. Train one with `{train}`."
            else:
                folder = self.store.absolute()
                reason = f"{error} The service watches {watched}.".replace(str(folder), folder.name)  # a client sees it
            self.health.block("model", reason)

    async def _on_thread(self, function: Callable[..., R], *args: Any) -> R:
        return await asyncio.get_running_loop().run_in_executor(self._thread, function, *args)

    async def _look_again_and_again(self) -> None:
        try:
            await self._scan()  # GET /models need not wait for the device
            await self._on_thread(check_device, self._wish)
        except FlowersError as error:
            self._on_fatal(error)
            return
        except Exception:
            log.exception("device check failed")  # the watch must outlive any surprise
        while True:
            try:
                await self.look()
            except Exception:
                log.exception("store scan failed")  # the watch must outlive any surprise
            await asyncio.sleep(self._reload_interval_s)


def _wanted_versions(store: Path, model: str, in_use: int | None) -> list[tuple[StoredVersion, str]]:
    in_turn = list_in_turn(store, model)
    versions = [stored.version for stored in in_turn]
    if in_use in versions:
        in_turn = in_turn[: versions.index(in_use) + 1]
    return [(stored, _fingerprint(stored.folder)) for stored in in_turn]


def _fingerprint(folder: Path) -> str:
    """Return a digest of names, sizes and times. It changes when a file of the version does."""
    try:
        files = sorted(
            (str(path), stamp.size, stamp.mtime_ns) for path in folder.rglob("*") if (stamp := stamp_file(path))
        )
    except OSError as error:  # verification says it of this version alone
        return str(error)
    return hashlib.sha256(repr(files).encode()).hexdigest()


def _may_pass(error: BaseException | None) -> bool:
    """Return whether the disk, the memory or a changing file is at fault, and not the version."""
    if is_out_of_memory(error):
        return True
    while error is not None:
        if isinstance(error, ChangedVersion) or (isinstance(error, OSError) and not isinstance(error, UnfitFile)):
            return True
        error = error.__cause__
    return False
