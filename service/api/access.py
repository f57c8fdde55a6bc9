"""Who may ask: API keys, off unless some are configured."""

import hashlib
import hmac
from pathlib import Path
from typing import Any

from pydantic import SecretStr
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from service.api.problems import error_response
from service.errors import SettingsError, Unauthorized

PROBES = frozenset({"/livez", "/readyz", "/startupz"})
"""Open always: an orchestrator has no key."""


def read_keys(inline: SecretStr | None, file: Path | None) -> frozenset[bytes]:
    """The digests of the keys: `inline` separates them by commas, `file` has one a line, `#` begins a remark.

    None is an answer only where neither was given: a secret that came out empty must not open the service.

    Raises:
        SettingsError: the file cannot be read, a key has other characters than printable ASCII without spaces, or
            keys were configured and none is there.
    """
    keys = [key.strip() for key in (inline.get_secret_value() if inline else "").split(",")]
    if file is not None:
        try:
            keys += [line.partition("#")[0].strip() for line in file.read_text(encoding="utf-8").splitlines()]
        except (OSError, UnicodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is no text"
            raise SettingsError(
                f"--api-keys-file (FLOWERS_API_KEYS_FILE) cannot be read: {reason}; name a file with one key a line"
            ) from None
    keys = [key for key in keys if key]
    if not keys and (inline, file) != (None, None):
        raise SettingsError(
            "API keys are configured, but there is none, and the service would be open to everybody: give it one"
        )
    if not all(key.isascii() and key.isprintable() and " " not in key for key in keys):
        raise SettingsError("an API key has characters that no header can carry: make one with `openssl rand -hex 32`")
    return frozenset(map(_digest, keys))


class ApiKeys:
    """Who has a key. `keys` are digests, as `read_keys` gives them; at least one."""

    def __init__(self, keys: frozenset[bytes]) -> None:
        self._keys = keys

    def are_in(self, headers: Headers) -> bool:
        """Whether one of them was sent."""
        scheme, _, token = headers.get("authorization", "").partition(" ")
        sent = [headers.get("x-api-key", ""), token.strip() if scheme.lower() == "bearer" else ""]
        # Digests of equal length, and all of them compared: the time tells neither a prefix nor which key it was.
        matches = [hmac.compare_digest(_digest(key), known) for key in sent for known in self._keys]
        return any(matches)


def document_keys(document: dict[str, Any], open_paths: frozenset[str]) -> None:
    """Say in an OpenAPI document that every path but `open_paths` wants a key, and in which header."""
    document["components"]["securitySchemes"] = {
        "bearer": {"type": "http", "scheme": "bearer"},
        "header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
    }
    for path, operations in document["paths"].items():
        for operation in operations.values():
            operation["security"] = [] if is_open(path, open_paths) else [{"bearer": []}, {"header": []}]


class Guard:
    """Lets nobody past who has no key, except to the paths in `open_paths` and, but for the probes, below them.

    A path that is not named there is closed, one that a later version adds too. The body is not read.
    """

    def __init__(self, app: ASGIApp, *, keys: ApiKeys, open_paths: frozenset[str]) -> None:
        self._app = app
        self._keys = keys
        self._open_paths = open_paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer 401."""
        is_guarded = scope["type"] == "http" and not is_open(scope["path"], self._open_paths)
        if is_guarded and not self._keys.are_in(Headers(scope=scope)):
            detail = "This service wants an API key: send it as Authorization: Bearer <key>, or as X-API-Key: <key>."
            response = error_response(scope, Unauthorized(detail), {"WWW-Authenticate": 'Bearer realm="flowers"'})
            await response(scope, receive, send)
        else:
            await self._app(scope, receive, send)


def is_open(path: str, open_paths: frozenset[str]) -> bool:
    """Whether a path is one of `open_paths` or, but for the probes, below one."""
    return path in open_paths or any(path.startswith(f"{folder}/") for folder in open_paths - PROBES)


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()
