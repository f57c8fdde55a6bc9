"""Limits on unread answers: their bytes on a connection, and their time."""

import asyncio

from starlette.types import ASGIApp, Message, Receive, Scope, Send

SEND_TIMEOUT_S = 60.0
"""Time that a client has to take what waits for it on its connection, in seconds."""

MAX_UNSENT_BYTES = 64 * 1024
"""Size of the write buffer beyond which nothing more is written, and no further request is begun."""


class UnsentClock:
    """Clock of one connection's write buffer. It runs from the first byte that the client does not take.

    It starts again when the buffer has room. A closing transport keeps its buffer and its clock.

    Source: nginx, `send_timeout`.
    """

    def __init__(self, transport: asyncio.Transport) -> None:
        transport.set_write_buffer_limits(high=MAX_UNSENT_BYTES)
        self._transport = transport
        self._since: float | None = None

    def restart(self) -> None:
        """Start again, since the client has taken what waited."""
        self._since = None

    def check(self, now: float) -> None:
        """Abort the connection if bytes have waited for too long at `now` (seconds)."""
        if not self._transport.get_write_buffer_size():
            self._since = None
        elif self._since is None:
            self._since = now
        elif now - self._since >= SEND_TIMEOUT_S:
            self._transport.abort()

    def abort(self) -> None:
        """Abort the connection if any byte waits."""
        if self._transport.get_write_buffer_size():
            self._transport.abort()


class SendInPieces:
    """ASGI layer that sends a large body in pieces of `MAX_UNSENT_BYTES`.

    Before each piece the server waits for the client to take earlier ones. Otherwise the write buffer holds all.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, and cut its answer's body."""

        async def send_in_pieces(message: Message) -> None:
            body = message.get("body", b"")
            if len(body) <= MAX_UNSENT_BYTES:
                await send(message)
                return
            view = memoryview(body)
            for start in range(0, len(body), MAX_UNSENT_BYTES):
                piece = bytes(view[start : start + MAX_UNSENT_BYTES])
                is_last = start + MAX_UNSENT_BYTES >= len(body)
                await send({**message, "body": piece, "more_body": message.get("more_body", False) or not is_last})

        await self._app(scope, receive, send_in_pieces)
