"""Locations of stores: a folder, or the URL of a remote store with the folder of its cache. What a model has there."""

import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from service.errors import SettingsError

SCHEMES = ("s3", "gs", "https", "http")
"""Schemes of remote stores. http is taken from this machine only."""

_PLAIN = re.compile(r"[!-~]+")
_INDEX = "/index.json"
_MANGLED = re.compile(rf"({'|'.join(SCHEMES)}):/?[^/].*", re.IGNORECASE)


@dataclass(frozen=True)
class StoreUrl:
    """URL of a remote store, such as s3://bucket/models. It holds no credentials and does not end with a slash."""

    scheme: str
    host: str
    path: str

    def __str__(self) -> str:
        """Return the URL."""
        return f"{self.scheme}://{self.host}{self.path}"

    def cache_folder(self, cache: Path) -> Path:
        """Return the folder below `cache` that mirrors this store. It need not exist."""
        digest = hashlib.sha256(str(self).encode()).hexdigest()[:32]
        return Path(os.path.expanduser(cache)) / "stores" / digest  # noqa: PTH111 - no error without a home folder


@dataclass(frozen=True)
class RemoteModel:
    """Versions of a model in a remote store, oldest first, and the pinned one. Without versions it is not there."""

    versions: tuple[int, ...] = ()
    pinned: int | None = None


def parse_location(location: object) -> Path | StoreUrl:
    """Return the folder or the URL that a setting means.

    Raises `SettingsError` for a URL with credentials, and for one that no store can have. Its text names no password.
    """
    if isinstance(location, Path | StoreUrl):
        return location
    text = str(location).strip()
    if "://" not in text:
        if _MANGLED.fullmatch(text):
            raise _refuse("It is a URL with a wrong number of slashes.")
        return Path(text)
    try:
        parts = urlsplit(text)
        is_valid = bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_valid = False
    if not is_valid or not _PLAIN.fullmatch(text) or ".." in parts.path.split("/"):
        raise _refuse("It is no valid URL.")
    if "@" in parts.netloc or "?" in text or "#" in text:
        raise _refuse(
            "Its URL holds a name, a password, a query or a fragment. Credentials come from the environment or from "
            "the files of the platform."
        )
    if parts.scheme not in SCHEMES:
        raise _refuse(f"No store is read by {parts.scheme[:20]}://.")
    if parts.scheme == "http" and not _is_this_machine(parts.hostname or ""):
        raise _refuse("Over http:// anyone on the way could change a version.")
    path = re.sub("/+", "/", parts.path).rstrip("/")
    if parts.scheme in ("https", "http"):
        path = path.removesuffix(_INDEX)
    return StoreUrl(parts.scheme, parts.netloc, path)


def _is_this_machine(host: str) -> bool:
    from service.http_client import is_this_machine  # brings httpx, which a folder does not need

    return is_this_machine(host)


def _refuse(what: str) -> SettingsError:
    return SettingsError(
        f"--model-store (FLOWERS_MODEL_STORE) cannot be used. {what} Name a folder, or a URL such as "
        "s3://bucket/models, gs://bucket/models or https://host/models."
    )
