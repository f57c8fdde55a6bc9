"""Keep-alive HTTP/1.1 connection for prepared requests, and the kinds of its answers. Its parser is in C.

A general client costs about a millisecond of processor time per request. A server on the same machine would lack it.
This one costs a tenth of that. `benchmarks/serving` measures it in each run.
"""

import asyncio
import json
from dataclasses import dataclass
from typing import Any, cast

import httptools

from service.http_client import parse_service_url

TIMEOUT, RESET, REFUSED, NOT_HTTP = "timeout", "connection reset", "connection refused", "not HTTP"


@dataclass(frozen=True)
class Target:
    """Address of a service."""

    host: str
    port: int
    path: str
    is_encrypted: bool = False

    def post(self, body: bytes, content_type: str, headers: tuple[str, ...] = ()) -> bytes:
        """Return a whole POST request. `headers` are lines such as "Name: value"."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        head = (
            f"POST {self.path} HTTP/1.1",
            f"Host: {host}:{self.port}",
            f"Content-Type: {content_type}",
            f"Content-Length: {len(body)}",
            *headers,
        )
        return "\r\n".join((*head, "", "")).encode("latin-1") + body


def parse_target(url: str, path: str) -> Target:
    """Return the target of a service's URL such as http://localhost:8000, with `path` appended.

    A URL that ends with `path` is taken as it is.

    Raises:
        InvalidParameter: The URL is no address of a service.
    """
    parts = parse_service_url(url, path)
    is_encrypted = parts.scheme == "https"
    return Target(parts.hostname or "", parts.port or (443 if is_encrypted else 80), parts.path, is_encrypted)


@dataclass(frozen=True)
class Response:
    """An answer. Without one, `status` is 0 and `failure` is the reason."""

    status: int = 0
    media_type: str = ""
    body: bytes = b""
    failure: str = ""

    def read_problem(self) -> dict[str, Any]:
        """Return the problem document (RFC 9457). It is empty for any other answer."""
        try:
            problem = json.loads(self.body) if self.media_type == "application/problem+json" else {}
        except ValueError:
            return {}
        return problem if isinstance(problem, dict) else {}


def find_error(response: Response) -> str:
    """Return a failure, a problem type such as /problems/overloaded, or a status. It is empty for a prediction."""
    if response.failure:
        return response.failure
    if response.status == 200:
        return "" if b'"label"' in response.body else "not a prediction"
    return str(response.read_problem().get("type", f"status {response.status}"))


class Connection:
    """Connection that opens at need, and again after a loss. It takes one request at a time."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._wire: _Wire | None = None

    async def ask(self, request: bytes, timeout_s: float) -> Response:
        """Send a request and return its answer, or its failure. It never raises."""
        try:
            async with asyncio.timeout(timeout_s):
                if self._wire is None or self._wire.is_closed:
                    _, self._wire = await asyncio.get_running_loop().create_connection(
                        _Wire, self._target.host, self._target.port, ssl=self._target.is_encrypted or None
                    )
                response = await self._wire.ask(request)
        except TimeoutError:
            response = Response(failure=TIMEOUT)
        except ConnectionRefusedError:
            response = Response(failure=REFUSED)
        except OSError as error:
            response = Response(failure=RESET if isinstance(error, ConnectionError) else "cannot connect")
        if response.failure:
            self.close()
        return response

    def close(self) -> None:
        """Close the connection. A pending answer is lost."""
        if self._wire is not None:
            self._wire.close()
            self._wire = None


class _Wire(asyncio.Protocol):
    """Open socket with its parser. httptools calls the methods that begin with on_."""

    def __init__(self) -> None:
        self.is_closed = False
        self._transport: asyncio.Transport | None = None
        self._answer: asyncio.Future[Response] | None = None
        self._new_message()

    async def ask(self, request: bytes) -> Response:
        assert self._transport is not None
        self._new_message()
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return await self._answer

    def close(self) -> None:
        self.is_closed = True
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's class is another with the same methods

    def connection_lost(self, _: Exception | None) -> None:
        self.is_closed = True
        self._settle(Response(failure=RESET))

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self._settle(Response(failure=NOT_HTTP))
            self.close()

    def on_header(self, name: bytes, value: bytes) -> None:
        if name.lower() == b"content-type":
            self._media_type = value.decode("latin-1").split(";")[0].strip().lower()

    def on_body(self, body: bytes) -> None:
        self._body.append(body)

    def on_message_complete(self) -> None:
        status = self._parser.get_status_code()
        if status < 200:  # an interim answer. The real one follows.
            return
        self._settle(Response(status, self._media_type, b"".join(self._body)))
        if not self._parser.should_keep_alive():
            self.close()

    def _new_message(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self._media_type = ""
        self._body: list[bytes] = []

    def _settle(self, response: Response) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(response)
