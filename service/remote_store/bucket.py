"""Reader of a store in a bucket, by fsspec. The libraries find the credentials by their own usual means."""

import logging
from collections.abc import Callable, Generator
from typing import Any, TypeVar

import fsspec

from service.errors import InvalidVersion, RemoteStoreError
from service.remote_store.location import RemoteModel, StoreUrl
from service.store.layout import PINNED_FILE, parse_version

T = TypeVar("T")

_LIBRARIES = ("aiobotocore", "aiohttp", "botocore", "fsspec", "gcsfs", "google", "s3fs", "urllib3")
_CONNECT_TIMEOUT_S = 10.0
_PIECE_BYTES = 256 * 1024
_BLOCK_BYTES = 8 * 1024 * 1024  # of one request
_MAX_NUMBER_BYTES = 64  # of PINNED


class BucketStore:
    """Reader of one store in a bucket of S3 or Google Cloud Storage.

    Args:
        url: The bucket, and the folder in it that holds the folders of models.
        timeout_s: Limit of the time without a byte, in seconds.
    """

    def __init__(self, url: StoreUrl, timeout_s: float) -> None:
        self._scheme = url.scheme
        self._root = f"{url.host}{url.path}"
        self._timeout_s = timeout_s
        self._system: Any = None

    def list_versions(self, model: str) -> RemoteModel:
        """List the versions of a model. Raises `RemoteStoreError`."""
        try:
            entries = self._call(lambda system: system.ls(f"{self._root}/{model}", detail=True, refresh=True))
        except FileNotFoundError:
            return RemoteModel()
        folders = [entry["name"].rstrip("/").rpartition("/")[2] for entry in entries if entry["type"] == "directory"]
        files = [entry["name"].rpartition("/")[2] for entry in entries if entry["type"] == "file"]
        versions = tuple(sorted(filter(None, map(parse_version, folders))))
        return RemoteModel(versions, self._read_pin(model) if PINNED_FILE in files else None)

    def read(self, model: str, version: int, file: str) -> Generator[bytes, None, None]:
        """Yield the bytes of a file of a version. Raises `InvalidVersion` if it is missing, and `RemoteStoreError`."""
        path = f"{self._root}/{model}/{version}/{file}"
        try:
            opened = self._call(lambda system: system.open(path, "rb", block_size=_BLOCK_BYTES))
            try:
                while piece := self._call(lambda _: opened.read(_PIECE_BYTES)):
                    yield piece
            finally:
                opened.close()
        except FileNotFoundError as error:
            raise InvalidVersion(f"{file} is missing in the remote store.") from error

    def _read_pin(self, model: str) -> int | None:
        path = f"{self._root}/{model}/{PINNED_FILE}"
        try:
            content = self._call(lambda system: system.cat_file(path, start=0, end=_MAX_NUMBER_BYTES))
        except FileNotFoundError:  # it was unpinned between two requests
            return None
        version = parse_version(content.decode("ascii", "replace").strip())
        if version is None:
            raise RemoteStoreError(
                f"{PINNED_FILE} of {model} in the remote store holds no version number. Mend it there."
            )
        return version

    def _call(self, function: Callable[[Any], T]) -> T:
        """Call a function with the file system. Raises `FileNotFoundError` and `RemoteStoreError` only.

        The text of a library's error is not shown, since it may hold what is secret.
        """
        try:
            if self._system is None:
                for library in _LIBRARIES:  # their warnings hold URLs and answers
                    logging.getLogger(library).setLevel(logging.CRITICAL + 1)
                self._system = fsspec.filesystem(
                    self._scheme, skip_instance_cache=True, use_listings_cache=False, **self._list_options()
                )
            return function(self._system)
        except FileNotFoundError:
            raise
        except PermissionError as error:
            raise RemoteStoreError(
                "The remote store denies access. Give this process credentials that may list and read the bucket."
            ) from error
        except Exception as error:  # each library has its own tree
            raise RemoteStoreError(
                f"The remote store did not answer ({type(error).__name__}). Check the network, the URL and the "
                "credentials."
            ) from error

    def _list_options(self) -> dict[str, Any]:
        if self._scheme == "s3":
            timeouts = {"connect_timeout": _CONNECT_TIMEOUT_S, "read_timeout": self._timeout_s}
            return {"config_kwargs": {**timeouts, "retries": {"total_max_attempts": 2}}}
        if self._scheme == "gs":
            import aiohttp  # gcsfs brings it

            return {
                "requests_timeout": aiohttp.ClientTimeout(sock_connect=_CONNECT_TIMEOUT_S, sock_read=self._timeout_s)
            }
        return {}
