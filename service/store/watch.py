"""Watch of a store: it finds the version to serve, and hands it over to be taken into use."""

import hashlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import structlog

from service.errors import ChangedVersion, FlowersError, ModelNotFound, StoreError, is_out_of_memory
from service.files import UnfitFile, stamp_file
from service.store.layout import training_command
from service.store.versions import StoredVersion, list_in_turn

log: structlog.typing.FilteringBoundLogger = structlog.get_logger()

_FILLING_INTERVAL_S = 0.25  # between looks at an empty cache

OnThread = Callable[..., Awaitable[Any]]
"""Caller of a function on a thread, since a store may lie on a slow drive."""


@dataclass(frozen=True)
class Taken:
    """Facts for the log about a version that was taken into use. `warning` is empty without one."""

    engine: dict[str, str]
    warning: str = ""


@dataclass(frozen=True)
class Refusal:
    """Reason why a version is not served. It can be sent between processes.

    Attributes:
        reason: Sentences for the log.
        cause: The error behind it, for the log. It may be empty.
        is_passing: The disk, the memory or a changing file is at fault. Another try may succeed.
        is_ours: The reason may be shown to clients. Else it is a surprise.
        surprise: The surprise itself, for its traceback in the log. It stays in its process.
    """

    reason: str
    cause: str = ""
    is_passing: bool = False
    is_ours: bool = True
    surprise: Exception | None = None

    @classmethod
    def of(cls, error: Exception) -> Self:
        """Describe the error that was raised by a try to serve a version."""
        is_ours = isinstance(error, FlowersError)
        reason = str(error) if is_ours else repr(error)
        cause = repr(error.__cause__)[:400] if error.__cause__ else ""
        return cls(reason, cause, _may_pass(error), is_ours, None if is_ours else error)

    def to_dict(self) -> dict[str, Any]:
        """Return the fields that can be sent."""
        return {name: value for name, value in vars(self).items() if name != "surprise"}


@dataclass
class StoreWatch:
    """Watch of one model: the pinned version is wanted, else the newest that is good.

    Args:
        store, model: The folder to watch is `<store>/<model>`. It need not exist yet.
        take: Verifies, loads and serves a version.
        report_waiting: Gets the reason for which no version is served, while there is none.
        on_thread: Runs a function of the store on a thread.

    Attributes:
        in_use: Version that `take` has taken last.
        refused: Versions with the reason why they are not served, as a client may see it.
        explain_missing: Gives the reason why the folder has no version, for clients. Without it the folder is local.
    """

    store: Path
    model: str
    take: Callable[[StoredVersion], Awaitable[Taken | Refusal]]
    report_waiting: Callable[[str], None]
    on_thread: OnThread
    in_use: int | None = None
    refused: dict[int, str] = field(default_factory=dict)
    explain_missing: Callable[[], str] | None = None
    num_taken: int = 0
    num_refused: int = 0
    _fingerprints: dict[int, str] = field(default_factory=dict)  # what a version's files were when it was last tried
    _empty_because: str = ""
    _is_filling: bool = False

    def pause_s(self, interval_s: float) -> float:
        """Return the time to the next look, in seconds. It is short while a cache has no version yet."""
        return min(interval_s, _FILLING_INTERVAL_S) if self._is_filling else interval_s

    async def look(self) -> None:
        """Search the store once. The first version in turn that is good and not in use is taken."""
        try:
            wanted = await self.on_thread(_wanted_versions, self.store, self.model, self.in_use)
        except StoreError as error:
            self._report_empty(error)
            return
        self._empty_because, self._is_filling = "", False
        for stored, fingerprint in wanted:
            is_current = stored.version == self.in_use
            is_settled = self._fingerprints.get(stored.version) == fingerprint
            if not (is_settled and (is_current or stored.version in self.refused)):
                self._fingerprints[stored.version] = fingerprint
                if await self._try(stored):
                    return
            if is_current:
                return  # nothing newer was good: this one stays in use, even if its files are corrupt by now
        if self.in_use is None:
            newest = wanted[0][0].version
            self.report_waiting(f"Version {newest} was refused. {self.refused[newest]}")

    async def _try(self, stored: StoredVersion) -> bool:
        if self.in_use is None:
            self.report_waiting(f"Version {stored.version} of {stored.model} is being loaded.")
        outcome = await self.take(stored)
        if isinstance(outcome, Refusal):
            self._refuse(stored, outcome)
            return False
        self.in_use = stored.version
        self.refused.pop(stored.version, None)
        self.num_taken += 1
        log.info(
            "model loaded", model=stored.model, version=stored.version, pinned=stored.pinned, **outcome.engine
        )  # fmt: skip
        if outcome.warning:
            log.warning("engine warning", model=stored.model, version=stored.version, warning=outcome.warning)
        return True

    def _refuse(self, stored: StoredVersion, refusal: Refusal) -> None:
        if refusal.is_passing:
            del self._fingerprints[stored.version]  # a network drive may come back
        reason = refusal.reason if refusal.is_ours else "It could not be loaded. See the service's log."
        for store in (self.store.absolute(), self.store):
            reason = reason.replace(f"{store}/", "")  # a client sees it
        if self.refused.get(stored.version) == reason:
            return
        self.refused[stored.version] = reason
        self.num_refused += 1
        log.error(
            "version refused", model=stored.model, version=stored.version, reason=refusal.reason,
            cause=refusal.cause or None, still_live=self.in_use, exc_info=refusal.surprise,
        )  # fmt: skip

    def _report_empty(self, error: StoreError) -> None:
        if self.explain_missing is not None and isinstance(error, ModelNotFound):
            self._is_filling = self.in_use is None
            self.report_waiting(self.explain_missing())
            return
        if str(error) != self._empty_because:
            self._empty_because = str(error)
            log.warning("model missing", folder=str(self.store.absolute() / self.model), reason=str(error))
        if self.in_use is None:
            watched = f"{self.store.absolute().name}/{self.model}"
            if isinstance(error, ModelNotFound):
                train = training_command(self.model)
                reason = f"There is no version in {watched}, which the service watches. Train one with `{train}`."
            else:
                folder = self.store.absolute()
                reason = f"{error} The service watches {watched}.".replace(str(folder), folder.name)  # a client sees it
            self.report_waiting(reason)


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
