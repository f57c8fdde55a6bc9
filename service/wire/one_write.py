"""One write for an answer's head and body. Each write would wake up the client."""

import asyncio
from typing import Any

_SMALL_BYTES = 16 * 1024  # a copy of it costs less than what it saves


class OneWrite:
    """A transport that sends an answer's head and body in one piece.

    What is written waits for `flush`, which comes by itself in the event loop's next turn. More than a small answer
    goes at once. All but `write` and `close` is the transport's own. Nobody here uses its other ways to write.
    """

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._pieces: list[bytes] = []
        self._num_bytes = 0

    def write(self, data: bytes) -> None:
        """Send `data` with what is written next, or else soon."""
        self._pieces.append(data)
        self._num_bytes += len(data)
        if self._num_bytes > _SMALL_BYTES:
            self.flush()
        elif len(self._pieces) == 1:
            self._loop.call_soon(self.flush)

    def flush(self) -> None:
        """Send what has been written."""
        pieces, self._pieces, self._num_bytes = self._pieces, [], 0
        if pieces and not self._transport.is_closing():
            self._transport.write(b"".join(pieces))

    def close(self) -> None:
        """Send what has been written, then close."""
        self.flush()
        self._transport.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)
