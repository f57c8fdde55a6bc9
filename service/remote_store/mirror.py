"""Mirror of one model of a remote store in the cache: pulls, verifies, places and drops versions."""

import hashlib
import time
from collections.abc import Callable, Collection
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from service.errors import InvalidVersion, ModelNotFound, RemoteStoreError
from service.files import digest_file
from service.remote_store.cache import ModelCache, changing, size_of
from service.remote_store.location import RemoteModel
from service.remote_store.reader import StoreReader
from service.store.layout import SHA256SUMS_FILE
from service.store.verify import MAX_SHA256SUMS_BYTES, MAX_VERSION_BYTES, check_draft, read_sums, verify_version

MAX_FILES = 256
"""Limit of the files of a version. One has ten."""

_PULL_TIMEOUT_S = 3600.0  # of a version. A slower server holds the pulls of newer ones up
_MAX_RETRY_S = 600.0  # between two pulls of a version whose files are not those of its SHA256SUMS
_MAX_NAME_BYTES = 255


class PullStopped(Exception):
    """The process ends, and the pull with it."""


class _Overtaken(Exception):
    """The remote store has another pin or other versions than when the pull began."""


@dataclass
class _Refused:
    """Failed pulls of a version with this SHA256SUMS."""

    sums: bytes
    reason: str
    num_tries: int
    again_at: float


@dataclass
class Mirror:
    """Mirror of one model.

    Args:
        reader: Reader of the remote store.
        cache: Cache of the model.
        model: Name of the model.
        max_bytes: Limit of the cached versions. Those that are needed may exceed it.
        relook_s: Time between looks at the list of versions during a pull, in seconds. A change ends the pull.
        retry_s: Time before a corrupt version is pulled again, in seconds. It doubles with each try.
        is_stopping: Tells whether a pull shall end.
        report: Gets events for the log, each with its fields. The default does nothing.

    Attributes:
        refused: Reasons of the versions that could not be pulled, by number.
    """

    reader: StoreReader
    cache: ModelCache
    model: str
    max_bytes: int
    relook_s: float = 15.0
    retry_s: float = 5.0
    is_stopping: Callable[[], bool] = lambda: False
    report: Callable[..., None] = lambda *_, **__: None
    _listed: RemoteModel | None = None  # None means that a pull does not depend on it
    _relook_at: float = 0.0
    _failures: dict[int, _Refused] = field(default_factory=dict)
    _examined: dict[int, bytes] = field(default_factory=dict)  # SHA256SUMS of refused versions that are sound on disk

    @property
    def refused(self) -> dict[int, str]:
        """Reasons of the versions that could not be pulled, by number."""
        return {version: failure.reason for version, failure in self._failures.items()}

    def look(self, in_use: int | None = None, refused: Collection[int] = ()) -> RemoteModel | None:
        """Search the remote store once. Pull the pinned version, or else the newest one that is good.

        A version that is gone from the remote store is dropped when no process needs it.

        Args:
            in_use: The live version. It is never dropped.
            refused: Versions that the service could not load. The next older one is pulled, too.

        Returns:
            What the remote store has. None means that another process has the lock and does the same.

        Raises:
            ModelNotFound: The remote store has no version. The cache stays as it is.
            RemoteStoreError: The remote store cannot be read, or the cache cannot be written.
            PullStopped: `is_stopping` has become true.
        """
        with self.cache.locked() as is_ours:
            if in_use is not None:
                self.cache.lease({*self.cache.leased, in_use})
            if not is_ours:
                return None
            while True:
                try:
                    return self._look(in_use, refused)
                except _Overtaken:
                    continue

    def _look(self, in_use: int | None, refused: Collection[int]) -> RemoteModel:
        self._listed = model = self.reader.list_versions(self.model)
        self._relook_at = time.monotonic() + self.relook_s
        if not model.versions:
            raise ModelNotFound(
                f"The remote store has no version of {self.model}. Publish one there, or name another model with "
                "--model."
            )
        turn = [model.pinned] if model.pinned else list(reversed(model.versions))
        wanted = next((version for version in turn if self._obtain(version, refused)), None)
        self._settle(model, wanted, in_use)
        return model

    def obtain(self, version: int) -> None:
        """Pull one version by its number, unless it is cached.

        Raises `InvalidVersion`, or as `look`. Another process that pulls is no error, as the version may be cached.
        """
        with self.cache.locked() as is_ours:
            if is_ours:
                self._listed = None
                sums = self._read_remote_sums(version)
                if self.cache.read_sums(version) != sums:
                    self._pull(version, sums)
                self.cache.lease({version})

    def _obtain(self, version: int, refused: Collection[int]) -> bool:
        """Have a version in the cache as it is in the remote store. Return whether a service may take it."""
        try:
            sums = self._read_remote_sums(version)
        except InvalidVersion as error:
            self._refuse(version, b"", error)
            return self._has_usable(version, refused)
        if self.cache.read_sums(version) == sums and self._is_sound(version, sums, refused):
            self._failures.pop(version, None)
            return version not in refused
        failure = self._failures.get(version)
        if failure and failure.sums == sums and time.monotonic() < failure.again_at:
            return self._has_usable(version, refused)
        started_at = time.monotonic()
        try:
            num_bytes = self._pull(version, sums)
        except InvalidVersion as error:
            self._refuse(version, sums, error)
            return self._has_usable(version, refused)
        self._failures.pop(version, None)
        seconds = round(time.monotonic() - started_at, 3)
        self.report("version pulled", version=version, bytes=num_bytes, duration_s=seconds)
        return True

    def _has_usable(self, version: int, refused: Collection[int]) -> bool:
        """Return whether an older copy of a version is cached, which a service may take."""
        return version in self.cache.versions() and version not in refused

    def _is_sound(self, version: int, sums: bytes, refused: Collection[int]) -> bool:
        """Return whether the cached files are undamaged. They are read once if the service has refused them."""
        if version in refused and self._examined.get(version) != sums:
            try:
                verify_version(self.cache.versions()[version])
            except (InvalidVersion, KeyError):
                return False
            self._examined[version] = sums
        return True

    def _read_remote_sums(self, version: int) -> bytes:
        content = b""
        with closing(self.reader.read(self.model, version, SHA256SUMS_FILE)) as pieces:
            for piece in pieces:
                content += piece
                if len(content) > MAX_SHA256SUMS_BYTES:
                    raise InvalidVersion(f"{SHA256SUMS_FILE} has more than {MAX_SHA256SUMS_BYTES:,} bytes.")
        return content

    def _pull(self, version: int, sums: bytes) -> int:
        """Pull every file of a version into a draft, verify it, and place it. Return the bytes that were pulled.

        Files of an earlier try are kept if their digests are right.
        """
        digests = read_sums(sums)
        _check_files(digests)
        draft = self.cache.begin(version, sums)
        num_bytes, ends_at = 0, time.monotonic() + _PULL_TIMEOUT_S
        with changing(draft):
            for file, digest in digests.items():
                target = draft / file
                if not target.is_file() or digest_file(target) != digest:
                    max_bytes = MAX_VERSION_BYTES - num_bytes
                    num_bytes += self._pull_file(version, file, target, digest, max_bytes, ends_at)
        check_draft(draft)
        self.cache.place(draft, version)
        return num_bytes

    def _pull_file(self, version: int, file: str, target: Path, digest: str, max_bytes: int, ends_at: float) -> int:
        found, num_bytes = hashlib.sha256(), 0
        target.parent.mkdir(parents=True, exist_ok=True)
        with closing(self.reader.read(self.model, version, file)) as pieces, target.open("wb") as output:
            for piece in pieces:
                num_bytes += len(piece)
                if num_bytes > max_bytes:
                    raise InvalidVersion(f"{file} has more than {max_bytes:,} bytes.")
                if self.is_stopping():
                    raise PullStopped
                if self._listed is not None and time.monotonic() >= self._relook_at:
                    self._relook_at = time.monotonic() + self.relook_s
                    if self.reader.list_versions(self.model) != self._listed:
                        raise _Overtaken
                if time.monotonic() > ends_at:
                    raise RemoteStoreError(
                        f"A version was not pulled within {_PULL_TIMEOUT_S:.0f} s. Name a faster store."
                    )
                found.update(piece)
                output.write(piece)
        if found.hexdigest() != digest:
            raise InvalidVersion(f"{file} in the remote store is not the file of its {SHA256SUMS_FILE}.")
        return num_bytes

    def _refuse(self, version: int, sums: bytes, error: InvalidVersion) -> None:
        before = self._failures.get(version)
        num_tries = before.num_tries + 1 if before and before.sums == sums else 0
        again_at = time.monotonic() + min(_MAX_RETRY_S, self.retry_s * 2 ** min(num_tries, 20))
        self._failures[version] = _Refused(sums, str(error), num_tries, again_at)
        if before is None or before.reason != str(error):
            # SHA256SUMS comes last. Without it the version is being uploaded.
            self.report("version not pulled" if sums else "version incomplete", version=version, reason=str(error))

    def _settle(self, model: RemoteModel, wanted: int | None, in_use: int | None) -> None:
        """Write the pin, and drop what is gone from the remote store or too much.

        A newer version that is gone may be live still. Then the wanted one is pinned until that is dropped.
        """
        cached = self.cache.versions()
        gone = set(cached) - set(model.versions)
        newest = max(set(cached) - gone, default=None)
        kept = {version for version in (wanted, in_use, model.pinned, newest) if version in cached}
        self.cache.lease(kept)
        if wanted is not None:
            gone -= {version for version in gone if version != in_use and self._drop(version, "gone")}
        if model.pinned is not None and model.pinned in cached:
            self.cache.pin(model.pinned)
        elif model.pinned is None and wanted is not None:
            self.cache.pin(wanted if any(version > wanted for version in gone) else None)
        self._trim(kept)
        for version in self._failures.keys() - {*model.versions, model.pinned}:
            del self._failures[version]

    def _trim(self, kept: Collection[int]) -> None:
        sizes = {version: size_of(folder) for version, folder in self.cache.versions().items()}
        for version in sorted(sizes.keys() - set(kept)):
            if sum(sizes.values()) <= self.max_bytes:
                return
            if self._drop(version, "limit"):
                del sizes[version]

    def _drop(self, version: int, reason: str) -> bool:
        is_dropped = self.cache.drop(version)
        if is_dropped:
            self.report("cached version dropped", version=version, reason=reason)
        return is_dropped


def _check_files(digests: dict[str, str]) -> None:
    """Refuse names that are no relative paths of plain names. Nothing of them has reached the disk yet."""
    if len(digests) > MAX_FILES:
        raise InvalidVersion(f"{SHA256SUMS_FILE} lists more than {MAX_FILES} files.")
    folders = {str(parent) for file in digests for parent in PurePosixPath(file).parents}
    for file in digests:
        parts = file.split("/")
        is_plain = not {"", ".", ".."} & set(parts) and max(len(part.encode()) for part in parts) <= _MAX_NAME_BYTES
        if not is_plain or file in folders or file == SHA256SUMS_FILE:
            raise InvalidVersion(f"{SHA256SUMS_FILE} lists {file[:80]!a}, which is no relative path of a file.")
