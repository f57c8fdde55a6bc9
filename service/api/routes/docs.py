"""`GET /docs`, `GET /openapi.json` and `GET /problems/<name>`. They work offline."""

import base64
import hashlib
import re
from collections.abc import Callable
from functools import cache, lru_cache
from importlib import resources
from typing import Annotated, Any

from fastapi import APIRouter, Path
from fastapi.openapi.docs import get_swagger_ui_html
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response

from service.api import problems
from service.api.record import record_of
from service.api.schemas import ProblemDetails

router = APIRouter(tags=["documentation"])

_ASSETS = {"swagger-ui-bundle.js": "text/javascript", "swagger-ui.css": "text/css", "favicon-32x32.png": "image/png"}


@router.get(
    "/openapi.json",
    summary="This document",
    response_class=JSONResponse,
    responses={200: {"content": {"application/json": {"schema": {"type": "object"}}}}, **problems.document()},
)
async def openapi(request: Request) -> Response:
    """Describe every path, for programs and for the page below."""
    return Response(_write(request.app.openapi), media_type="application/json")


@router.get("/docs", summary="Swagger UI", response_class=HTMLResponse, responses=problems.document())
async def docs(request: Request) -> HTMLResponse:
    """Show Swagger UI. Its addresses are relative, so it works behind a proxy's prefix, too."""
    folder = "../" if request.scope.get("raw_path", b"").endswith(b"/") else ""
    page = get_swagger_ui_html(
        openapi_url=f"{folder}openapi.json",
        title=request.app.title,
        swagger_js_url=f"{folder}docs/swagger-ui-bundle.js",
        swagger_css_url=f"{folder}docs/swagger-ui.css",
        swagger_favicon_url=f"{folder}docs/favicon-32x32.png",
        swagger_ui_parameters={"validatorUrl": None},  # otherwise it asks a server on the internet for a badge
    )
    page.headers["Content-Security-Policy"] = _allow_own(bytes(page.body))
    return page


@router.get(
    "/docs/{asset}",
    summary="A file of Swagger UI",
    response_class=Response,
    responses={
        200: {"content": {media_type: {"schema": {"type": "string"}} for media_type in _ASSETS.values()}},
        **problems.document(problems.NOT_FOUND),
    },
)
async def docs_asset(asset: Annotated[str, Path(json_schema_extra={"enum": sorted(_ASSETS)})]) -> Response:
    """Send a file of Swagger UI. A package brings it."""
    if asset not in _ASSETS:
        raise HTTPException(404)
    return Response(_read_asset(asset), media_type=_ASSETS[asset], headers={"Cache-Control": "public, max-age=86400"})


@router.get("/problems/{name}", summary="What a kind of problem means", responses=problems.document(problems.NOT_FOUND))
async def problem(
    request: Request, name: Annotated[str, Path(json_schema_extra={"enum": sorted(problems.PROBLEMS)})]
) -> ProblemDetails:
    """Explain a kind of problem. Its `type` is this path."""
    if name not in problems.PROBLEMS:
        raise HTTPException(404)
    return problems.PROBLEMS[name].write(record_of(request.scope).request_id)


@lru_cache(maxsize=1)  # writing it takes milliseconds of the event loop
def _write(describe: Callable[[], dict[str, Any]]) -> bytes:
    return bytes(JSONResponse(describe()).body)


@cache  # one copy for all clients
def _read_asset(asset: str) -> bytes:
    return resources.files("fastapi_swagger.resources").joinpath(asset).read_bytes()


def _allow_own(page: bytes) -> str:
    """Allow the page its own files, its own script, and styles in elements."""
    scripts = re.findall(rb"<script>(.*?)</script>", page, re.DOTALL)
    hashes = [f"'sha256-{base64.b64encode(hashlib.sha256(script).digest()).decode()}'" for script in scripts]
    return (
        f"default-src 'self'; script-src 'self' {' '.join(hashes)}; style-src 'self' 'unsafe-inline'; "
        "img-src 'self' data:; frame-ancestors 'none'"
    )
