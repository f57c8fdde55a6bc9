"""API keys. Without configured keys the service is open."""

import hashlib
import hmac
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import SecretStr
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from service.api.problems import document as document_problems
from service.api.problems import error_response
from service.api.protocols.protocol import Protocols
from service.errors import SettingsError, Unauthorized

PROBES = frozenset({"/livez", "/readyz", "/startupz"})
"""Paths that are always open. An orchestrator has no key."""

_ROOT = "/"  # the page alone, since every path stands below it


@dataclass(frozen=True)
class ApiKeys:
    """Digests of at least one key."""

    digests: frozenset[bytes]

    def are_in(self, headers: Headers) -> bool:
        """Return whether the headers hold one of the keys."""
        scheme, _, token = headers.get("authorization", "").partition(" ")
        sent = [headers.get("x-api-key", ""), token.strip() if scheme.lower() == "bearer" else ""]
        # All digests are compared, and their length is equal. So the time tells nothing about a key.
        matches = [hmac.compare_digest(_digest(key), known) for key in sent for known in self.digests]
        return any(matches)


def read_keys(inline: SecretStr | None, file: Path | None) -> ApiKeys | None:
    """Return all keys. None means that no keys are configured.

    Args:
        inline: Keys separated by commas.
        file: A file with one key a line. `#` begins a remark.

    Raises:
        SettingsError: The file cannot be read, the list is empty, or a key is not printable ASCII without spaces.
    """
    keys = [key.strip() for key in (inline.get_secret_value() if inline else "").split(",")]
    if file is not None:
        try:
            keys += [line.partition("#")[0].strip() for line in file.read_text(encoding="utf-8").splitlines()]
        except (OSError, UnicodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "It is no text"
            raise SettingsError(
                f"--api-keys-file (FLOWERS_API_KEYS_FILE) cannot be read. {reason}. Name a file with one key a line."
            ) from None
    keys = [key for key in keys if key]
    if not keys and (inline, file) != (None, None):
        raise SettingsError(
            "The list of API keys is empty. The service would be open. Add a key, or unset FLOWERS_API_KEYS(_FILE)."
        )
    if not all(key.isascii() and key.isprintable() and " " not in key for key in keys):
        raise SettingsError("An API key has characters that no header can carry. Make one with `openssl rand -hex 32`.")
    return ApiKeys(frozenset(map(_digest, keys))) if keys else None


def document_keys(document: dict[str, Any], open_paths: frozenset[str], protocols: Protocols) -> None:
    """Document the key and its refusal for every path but `open_paths` and the probes of `protocols`."""
    document["components"]["securitySchemes"] = {
        "bearer": {"type": "http", "scheme": "bearer"},
        "header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
    }
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            is_free = is_open(path, open_paths) or protocols.is_probe(method.upper(), path)
            operation["security"] = [] if is_free else [{"bearer": []}, {"header": []}]
            if not is_free:
                operation["responses"]["401"] = document_problems(Unauthorized, is_plain=protocols.has_path(path))[401]


class Guard:
    """ASGI layer that refuses requests without a key. It does not read bodies.

    `open_paths` need no key, and neither do the paths below them, except below a probe or the root. Probes of
    `protocols` are open, too.
    """

    def __init__(self, app: ASGIApp, *, keys: ApiKeys, open_paths: frozenset[str], protocols: Protocols) -> None:
        self._app = app
        self._protocols = protocols
        self._keys = keys
        self._open_paths = open_paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer 401."""
        is_guarded = scope["type"] == "http" and not is_open(scope["path"], self._open_paths)
        is_guarded = is_guarded and not self._protocols.is_probe(scope["method"], scope["path"])
        if is_guarded and not self._keys.are_in(Headers(scope=scope)):
            detail = "This service wants an API key. Send it as Authorization: Bearer <key>, or as X-API-Key: <key>."
            response = error_response(scope, Unauthorized(detail), {"WWW-Authenticate": 'Bearer realm="flowers"'})
            await response(scope, receive, send)
        else:
            await self._app(scope, receive, send)


def is_open(path: str, open_paths: frozenset[str]) -> bool:
    """Return whether a path is one of `open_paths`, or below one that is neither a probe nor the root."""
    return path in open_paths or any(path.startswith(f"{folder}/") for folder in open_paths - PROBES - {_ROOT})


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()
