"""Readers of remote stores, by the kind of their URL."""

import shlex
import sys
from collections.abc import Callable, Generator
from importlib.util import find_spec
from typing import Protocol

from service.errors import SettingsError
from service.remote_store.location import RemoteModel, StoreUrl

TIMEOUT_S = 30.0
"""Limit of the time without a byte, in seconds."""

_NEEDED = {"s3": ("fsspec", "s3fs"), "gs": ("fsspec", "gcsfs")}


class StoreReader(Protocol):
    """Reader of one remote store. Its methods block."""

    def list_versions(self, model: str) -> RemoteModel:
        """List the versions of a model. Raises `RemoteStoreError`."""
        ...

    def read(self, model: str, version: int, file: str) -> Generator[bytes, None, None]:
        """Yield the bytes of a file of a version. Raises `InvalidVersion` if it is missing, and `RemoteStoreError`."""
        ...


def check_installed(url: StoreUrl, find: Callable[[str], object] = find_spec) -> None:
    """Raise `SettingsError` if a package for this kind of URL is missing."""
    missing = [package for package in _NEEDED.get(url.scheme, ()) if not find(package)]
    if missing:
        raise SettingsError(
            f"A store behind {url.scheme}:// needs {' and '.join(missing)}, not installed here. Run "
            f"`{shlex.quote(sys.executable)} -m pip install {' '.join(missing)}`."
        )


def open_reader(url: StoreUrl, *, timeout_s: float = TIMEOUT_S) -> StoreReader:
    """Return the reader of a store. It connects when it is used. Raises `SettingsError` as `check_installed`."""
    check_installed(url)
    if url.scheme in ("https", "http"):
        from service.remote_store.web import WebStore

        return WebStore(url, timeout_s)
    from service.remote_store.bucket import BucketStore

    return BucketStore(url, timeout_s)
