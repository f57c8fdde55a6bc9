"""Download of an archive of a version, and copy of a local one, with the digest of the bytes that arrive."""

import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import httpx

from service.errors import ArchiveError, DownloadError, InvalidParameter, SettingsError
from service.files import open_regular
from service.http_client import Way, is_this_machine

Progress = Callable[[int, int | None], None]

_TIMEOUT_S = 30.0  # without a byte
_HEADERS = (("Accept-Encoding", "identity"),)  # the digest is of the archive as it is stored
_MAX_REDIRECTS = 5
_PIECE_BYTES = 256 * 1024


def copy_archive(
    source: str, target: IO[bytes], sha256: str, *, max_bytes: int, progress: Progress, timeout_s: float = _TIMEOUT_S
) -> None:
    """Write a file, or the answer of an https URL, into `target`, and compare its digest.

    An http URL is taken from this machine only. A redirect may not leave scheme, host and port.

    Args:
        source: Path or URL.
        target: File without content. It may hold other bytes after an error.
        sha256: Digest that the bytes must have, 64 hexadecimal digits in lower case.
        max_bytes: Limit of the archive.
        progress: Gets (bytes done, bytes in all). The second is None where the server does not say it.
        timeout_s: Limit of the time without a byte, in seconds.

    Raises:
        InvalidParameter: The URL is none that is taken.
        DownloadError: The file cannot be read, or the server does not answer with it.
        ArchiveError: The archive is too large, or its digest is another one.
    """
    digest, num_bytes = hashlib.sha256(), 0
    with _download(source, timeout_s) if "://" in source else _read(Path(source)) as (size, pieces):
        for piece in pieces:
            num_bytes += len(piece)
            if num_bytes > max_bytes:
                raise ArchiveError(f"The archive has more than {max_bytes:,} bytes. No version is that large.")
            digest.update(piece)
            target.write(piece)
            progress(num_bytes, size)
    if digest.hexdigest() != sha256:
        raise ArchiveError(
            f"The archive has the sha256 {digest.hexdigest()}, not {sha256}. Nothing of it was kept. Ask the person "
            "who packed it for the digest."
        )


@contextmanager
def _read(path: Path) -> Iterator[tuple[int, Iterator[bytes]]]:
    try:
        file = open_regular(path)
        size = os.fstat(file.fileno()).st_size
    except OSError as error:
        raise DownloadError(f"{path} cannot be read ({error.strerror or error}). Name a file, or a URL.") from error
    with file:
        yield size, iter(lambda: file.read(_PIECE_BYTES), b"")


@contextmanager
def _download(url: str, timeout_s: float) -> Iterator[tuple[int | None, Iterator[bytes]]]:
    address = _check(url)
    through = ""
    try:
        way = Way(address)
        through = f" through the proxy of {way.proxy_variable}" if way.proxy_variable else ""
        with way.open_client(headers=_HEADERS, timeout_s=timeout_s) as client:
            for _ in range(1 + _MAX_REDIRECTS):
                with client.stream("GET", address, follow_redirects=False) as response:
                    if response.next_request is None:
                        if response.status_code != httpx.codes.OK:
                            raise _failure(address, f"answered with status {response.status_code}.")
                        length = response.headers.get("Content-Length", "")
                        yield int(length) if length.isdecimal() else None, response.iter_raw()
                        return
                    target = response.next_request.url
                if _origin(target) != _origin(address):
                    raise _failure(
                        address, f"leads to {target.scheme}://{target.netloc.decode()}. Only its own host is followed."
                    )
                address = target
        raise _failure(address, f"was redirected more than {_MAX_REDIRECTS} times.")
    except SettingsError as error:
        raise _failure(address, f"could not be fetched. {error}") from error
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise _failure(address, f"could not be fetched{through} ({error}).") from error


def _check(url: str) -> httpx.URL:
    try:
        address = httpx.URL(url)
    except (httpx.InvalidURL, ValueError) as error:
        raise InvalidParameter(f"{url[:200]!r} is no URL ({error}). Write it like https://host/file.tar.gz.") from error
    if address.scheme == "https" and address.host:
        return address
    if address.scheme == "http" and is_this_machine(address.host):
        return address
    raise InvalidParameter(
        f"{_named(address)} is not taken. An archive comes by https, or by http from this machine. Write it like "
        "https://host/file.tar.gz."
    )


def _origin(url: httpx.URL) -> tuple[str, str, int | None]:
    return url.scheme, url.host, url.port


def _named(url: httpx.URL) -> str:
    """Return the URL without a password and without its query, which may be a key as well."""
    return str(url.copy_with(username=None, password=None, query=None, fragment=None))


def _failure(url: httpx.URL, what: str) -> DownloadError:
    return DownloadError(f"{_named(url)} {what} Try again, or download it yourself and pull the file.")
