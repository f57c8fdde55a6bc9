"""Lingering: reading on for a while after an answer that comes before the end of a body."""

import asyncio
from collections.abc import Callable
from contextlib import suppress

from starlette.types import ASGIApp, Message, Receive, Scope, Send

SKIPPED_BYTES = 1024 * 1024
"""An unread rest of this size costs less than a new connection."""

LINGER_S = 2.0
LINGER_WHILE_DRAINING_S = 1.0  # the process may be about to end


def linger_s(*, is_draining: bool) -> float:
    """Return the time for reading on and throwing away, in seconds."""
    return LINGER_WHILE_DRAINING_S if is_draining else LINGER_S


class Linger:
    """ASGI layer that closes a connection some seconds after an answer before the end of its body.

    It does so after a long body, and where the client wants the connection closed.

    After closing at once, the kernel resets the connection while the client still writes, and the answer is lost. A
    client could write for ever to a connection that stays open. While the service drains, every answer closes its
    connection. Clients turn to another replica then.

    A client that waits for 100 Continue and gets its final answer may send the body or leave it out. Its next request
    cannot be told from that body. So this answer closes the connection, too.

    Source: nginx, `lingering_close` and `lingering_time`. RFC 9110, section 10.1.1, on Expect.
    """

    def __init__(self, app: ASGIApp, *, is_draining: Callable[[], bool]) -> None:
        self._app = app
        self._is_draining = is_draining

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, and watch its body arrive."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        is_chunked = b"transfer-encoding" in headers
        announced_bytes = int(headers.get(b"content-length", b"0"))
        is_complete = not is_chunked and not announced_bytes
        waits_to_continue = not is_complete and b"expect" in headers and scope["http_version"] == "1.1"
        is_last = b"close" in headers.get(b"connection", b"").lower() or scope["http_version"] == "1.0"
        is_closing = False

        async def receive_watched() -> Message:
            nonlocal is_complete, waits_to_continue
            waits_to_continue = False
            message = await receive()
            is_complete = not message.get("more_body", False)
            return message

        async def send_then_linger(message: Message) -> None:
            nonlocal is_closing
            if message["type"] == "http.response.start":
                is_long = is_chunked or announced_bytes > SKIPPED_BYTES
                is_too_slow = message["status"] == 408
                is_unread = not is_complete and (is_long or is_last)
                is_closing = self._is_draining() or is_too_slow or is_unread or waits_to_continue
                if is_closing:
                    message["headers"] = [*message.get("headers", ()), (b"connection", b"close")]
            elif is_closing and not is_complete and not message.get("more_body", False):
                await send({**message, "more_body": True})
                with suppress(TimeoutError):
                    async with asyncio.timeout(linger_s(is_draining=self._is_draining())):
                        while not is_complete:
                            await receive_watched()
                message = {"type": "http.response.body", "body": b"", "more_body": False}
            await send(message)

        await self._app(scope, receive_watched, send_then_linger)
