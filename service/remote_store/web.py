"""Reader of a store behind https. Its `index.json` is what `flowers models list --json` prints.

Credentials come from `~/.netrc`, or from the file that NETRC names. Proxy and certificates are those of the
environment.
"""

import json
import netrc
import os
from collections.abc import Generator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx

from service.errors import InvalidVersion, RemoteStoreError, SettingsError
from service.http_client import Way
from service.remote_store.location import RemoteModel, StoreUrl
from service.store.layout import parse_version

INDEX_FILE = "index.json"
"""File of the store that lists its versions."""

_MAX_INDEX_BYTES = 1024 * 1024
_MAX_REDIRECTS = 5
_MISSING = (httpx.codes.NOT_FOUND, httpx.codes.GONE)
_DENIED = (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN)
_HEADERS = (("Accept-Encoding", "identity"), ("Cache-Control", "no-cache"))  # digests are of the files as stored


class WebStore:
    """Reader of one store behind https, or http on this machine.

    Args:
        url: The folder that holds `index.json` and the folders of models.
        timeout_s: Limit of the time without a byte, in seconds.
    """

    def __init__(self, url: StoreUrl, timeout_s: float) -> None:
        self._url = url
        self._timeout_s = timeout_s

    def list_versions(self, model: str) -> RemoteModel:
        """List the versions of a model, by the index. Raises `RemoteStoreError`."""
        content, num_bytes = [], 0
        with closing(self._get(INDEX_FILE)) as pieces:
            for piece in pieces:
                num_bytes += len(piece)
                if num_bytes > _MAX_INDEX_BYTES:
                    raise _unreadable(f"has more than {_MAX_INDEX_BYTES:,} bytes")
                content.append(piece)
        try:
            rows = json.loads(b"".join(content))
        except (ValueError, RecursionError) as error:
            raise _unreadable("is no JSON") from error
        return _read_index(rows, model)

    def read(self, model: str, version: int, file: str) -> Generator[bytes, None, None]:
        """Yield the bytes of a file of a version. Raises `InvalidVersion` if it is missing, and `RemoteStoreError`."""
        with suppress(_Missing):
            yield from self._get(f"{model}/{version}/{file}")
            return
        raise InvalidVersion(f"{file} is missing in the remote store.")

    def _get(self, path: str) -> Generator[bytes, None, None]:
        address = httpx.URL(f"{self._url}/{quote(path)}")
        name = path.rpartition("/")[2]
        try:
            with Way(address).open_client(headers=_HEADERS, timeout_s=self._timeout_s) as client:
                for _ in range(1 + _MAX_REDIRECTS):
                    with client.stream("GET", address, follow_redirects=False, auth=_read_netrc()) as response:
                        if response.next_request is None:
                            _check_status(response, name)
                            yield from response.iter_raw()
                            return
                        target = response.next_request.url
                    if (target.scheme, target.netloc) != (address.scheme, address.netloc):
                        raise RemoteStoreError(
                            f"The remote store redirects {name} to another host. Name the URL of that host."
                        )
                    address = target
            raise RemoteStoreError(
                f"The remote store redirects {name} more than {_MAX_REDIRECTS} times. Mend it there."
            )
        except SettingsError as error:  # of the proxy or the certificates
            raise RemoteStoreError(f"The remote store cannot be reached. {error}") from error
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise RemoteStoreError(
                f"The remote store did not send {name} ({type(error).__name__}). Check the network and the URL."
            ) from error


class _Missing(RemoteStoreError):
    """The file is not there."""


def _check_status(response: httpx.Response, name: str) -> None:
    if response.status_code == httpx.codes.OK:
        return
    if response.status_code in _MISSING:
        raise _Missing(f"The remote store has no {name}. Put it there, or name another URL.")
    remedy = "Give the credentials in ~/.netrc." if response.status_code in _DENIED else "Try again later."
    raise RemoteStoreError(f"The remote store answered status {response.status_code} for {name}. {remedy}")


def _read_netrc() -> httpx.NetRCAuth | None:
    file = os.environ.get("NETRC") or os.path.expanduser("~/.netrc")  # noqa: PTH111 - no error without a home folder
    if not Path(file).is_file():
        return None
    try:
        return httpx.NetRCAuth(file)
    except (OSError, netrc.NetrcParseError, UnicodeDecodeError) as error:
        raise RemoteStoreError(f"{file} cannot be read. Correct it, or name another file in NETRC.") from error


def _read_index(rows: Any, model: str) -> RemoteModel:
    versions, pinned = set(), None
    for row in rows if isinstance(rows, list) else [None]:
        if not isinstance(row, dict) or not isinstance(row.get("model"), str):
            raise _unreadable("is not what `flowers models list --json` prints")
        number = parse_version(str(row.get("version")))
        if row["model"] != model or row.get("is_candidate"):
            continue
        if number is None:
            raise _unreadable("names a version that is no integer from 1")
        versions.add(number)
        pinned = number if row.get("is_pinned") else pinned
    return RemoteModel(tuple(sorted(versions)), pinned)


def _unreadable(what: str) -> RemoteStoreError:
    return RemoteStoreError(f"{INDEX_FILE} of the remote store {what}. Write it with `flowers models list --json`.")
