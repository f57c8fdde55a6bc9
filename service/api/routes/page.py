"""`GET /`: the page for people, and its files. It works offline and behind a proxy that strips a prefix."""

import hashlib
import re
from collections.abc import Mapping
from functools import cache
from pathlib import PurePosixPath
from typing import Annotated, Any

from fastapi import APIRouter, Path
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from service.api import problems
from service.api.page import INDEX, MEDIA_TYPES, read_files

router = APIRouter(tags=["page"])

OPEN_PATHS = frozenset({"/", "/page"})
"""Paths that need no key. The files name no model."""

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_PREFIX_HEADER = "X-Forwarded-Prefix"
_PREFIX_PARAMETER = {
    "name": _PREFIX_HEADER,
    "in": "header",
    "required": False,
    "schema": {"type": "string"},
    "description": "The prefix that a proxy has stripped. Links begin with it.",
}
_KNOWN_PARAMETER = {
    "name": "If-None-Match",
    "in": "header",
    "required": False,
    "schema": {"type": "string"},
    "description": "ETags that the client has. One of them makes the answer 304.",
}
_PREFIX = re.compile(r"(?:/[A-Za-z0-9_~-][A-Za-z0-9._~-]*)+")  # of nothing else are an address and a file's link made


def _describe(*media_types: str) -> dict[int | str, dict[str, Any]]:
    """Return the responses of a file for OpenAPI."""
    headers = {"ETag": {"schema": {"type": "string"}}, "Cache-Control": {"schema": {"type": "string"}}}
    text = {"type": "string"}
    content = {kind: {"schema": {} if kind == "application/json" else text} for kind in sorted(media_types)}
    whole = {"description": "The file.", "content": content, "headers": headers}
    return {200: whole, 304: {"description": "The client has it.", "headers": headers}, **problems.document()}


@router.get(
    "/",
    summary="The page for people",
    response_class=Response,
    responses=_describe("text/html"),
    openapi_extra={"parameters": [_PREFIX_PARAMETER, _KNOWN_PARAMETER]},
)
async def page(request: Request) -> Response:
    """Send the page. Its links begin with the prefix that a proxy tells."""
    prefix = _find_prefix(request.headers)
    content = _files()[INDEX].replace(b'="page/', f'="{prefix}/page/'.encode()) if prefix else _files()[INDEX]
    return _send(request, INDEX, content)


@router.get(
    "/page/{name:path}",
    summary="A file of the page",
    response_class=Response,
    responses={**_describe(*MEDIA_TYPES.values()), **problems.document(problems.NOT_FOUND)},
    openapi_extra={"parameters": [_KNOWN_PARAMETER]},
)
async def page_file(request: Request, name: Annotated[str, Path(examples=["page.js"])]) -> Response:
    """Send a file of the page."""
    if name not in _files() or name == INDEX:
        raise HTTPException(404)
    return _send(request, name, _files()[name])


class PrefixRedirect:
    """ASGI layer that redirects a proxy's prefix to the page, which is the prefix with a slash behind it."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer 307."""
        if scope["type"] == "http" and scope["method"] == "GET":
            prefix = _find_prefix(Headers(scope=scope))
            if prefix and scope.get("raw_path", b"") == prefix.encode():
                await RedirectResponse(f"{prefix}/")(scope, receive, send)
                return
        await self._app(scope, receive, send)


def _send(request: Request, name: str, content: bytes) -> Response:
    """Return a file, or 304 where the client has it."""
    etag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
    headers = {
        "Cache-Control": "no-cache",
        "Content-Security-Policy": POLICY,
        "ETag": etag,
        "Referrer-Policy": "no-referrer",
        "X-Content-Type-Options": "nosniff",
        **({"Vary": _PREFIX_HEADER} if name == INDEX else {}),
    }
    known = [tag.strip().removeprefix("W/") for tag in request.headers.get("If-None-Match", "").split(",")]
    if etag in known or "*" in known:
        return Response(status_code=304, headers=headers)
    return Response(content, headers=headers, media_type=MEDIA_TYPES[PurePosixPath(name).suffix])


def _find_prefix(headers: Mapping[str, str]) -> str:
    """Return the prefix that a proxy has stripped, without a slash at its end. It is empty without one."""
    prefix = headers.get(_PREFIX_HEADER, "").strip().rstrip("/")
    return prefix if _PREFIX.fullmatch(prefix) else ""


@cache  # one copy for all clients
def _files() -> dict[str, bytes]:
    return read_files()
