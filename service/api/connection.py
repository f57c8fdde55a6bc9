"""The connection behind a request: noticing that the sender is gone, closing without losing the answer, one write."""

import asyncio
from collections.abc import Awaitable
from contextlib import suppress
from typing import Any, TypeVar

from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.inference.health import Health

_SMALL_BYTES = 16 * 1024  # a copy of it costs less than what it saves
_DISCARDED_BYTES = 1024 * 1024  # an unread rest of this size costs less than a new connection
_LINGER_S = 2.0
_LAST_LINGER_S = 1.0  # while the service drains: the process may be about to end

T = TypeVar("T")


async def unless_hung_up(request: Request, work: Awaitable[T]) -> T:
    """The result of `work`, which is cancelled when the sender hangs up: nobody would read the answer.

    To be called when the body has been read.

    Raises:
        ClientDisconnect: the sender is gone.
    """
    working = asyncio.current_task()
    assert working is not None
    is_gone = False

    async def watch() -> None:
        nonlocal is_gone
        while (await request.receive())["type"] != "http.disconnect":
            pass
        is_gone = True
        working.cancel()

    watching = asyncio.create_task(watch())
    try:
        return await work
    except asyncio.CancelledError:
        if is_gone and not working.uncancel():
            raise ClientDisconnect from None
        raise
    finally:
        watching.cancel()


class OneWrite:
    """A transport that sends an answer's head and body in one piece: each would wake up the client.

    What is written waits for `flush`, which comes by itself in the event loop's next turn. What is more than a small
    answer goes at once. All but `write` and `close` is the transport's own; nobody here uses its other ways to write.
    """

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._pieces: list[bytes] = []

    def write(self, data: bytes) -> None:
        """Send `data` with what is written next, or else soon."""
        self._pieces.append(data)
        if len(data) > _SMALL_BYTES:
            self.flush()
        elif len(self._pieces) == 1:
            self._loop.call_soon(self.flush)

    def flush(self) -> None:
        """Send what has been written."""
        pieces, self._pieces = self._pieces, []
        if pieces and not self._transport.is_closing():
            self._transport.write(b"".join(pieces))

    def close(self) -> None:
        """Send what has been written, then close."""
        self.flush()
        self._transport.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


class LingeringClose:
    """Closes the connection after an answer that came long before the end of the body, but not at once.

    Closing at once makes the kernel reset the connection while the sender still writes, and the answer is
    lost; reading on lets a sender write for ever. So the answer goes out, what arrives in the next two
    seconds (one, while the service drains) is thrown away, then the connection closes. While the service
    drains, every answer closes its connection, so that clients turn to another replica.

    Source: nginx, `lingering_close` and `lingering_time`.
    """

    def __init__(self, app: ASGIApp, *, health: Health) -> None:
        self._app = app
        self._health = health

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, watch how far its body has come."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        is_chunked = b"transfer-encoding" in headers
        announced_bytes = int(headers.get(b"content-length", b"0"))
        is_complete = not is_chunked and not announced_bytes
        is_closing = False

        async def receive_watched() -> Message:
            nonlocal is_complete
            message = await receive()
            is_complete = not message.get("more_body", False)
            return message

        async def send_then_linger(message: Message) -> None:
            nonlocal is_closing
            if message["type"] == "http.response.start":
                is_long = is_chunked or announced_bytes > _DISCARDED_BYTES
                is_too_slow = message["status"] == 408
                is_closing = self._health.is_draining or is_too_slow or (is_long and not is_complete)
                if is_closing:
                    message["headers"] = [*message.get("headers", ()), (b"connection", b"close")]
            elif is_closing and not is_complete and not message.get("more_body", False):
                await send({**message, "more_body": True})
                with suppress(TimeoutError):
                    async with asyncio.timeout(_LAST_LINGER_S if self._health.is_draining else _LINGER_S):
                        while not is_complete:
                            await receive_watched()
                message = {"type": "http.response.body", "body": b"", "more_body": False}
            await send(message)

        await self._app(scope, receive_watched, send_then_linger)
