"""Accepting of connections: as many as there is room for. Others wait in the kernel's backlog."""

import asyncio
import socket
from collections.abc import Callable

import structlog

_MOST_A_TURN = 64  # some milliseconds, in which nothing else is served
_LOOK_AGAIN_S = 0.02
_AFTER_ERROR_S = 0.2  # no descriptor, or no memory

log: structlog.typing.FilteringBoundLogger = structlog.get_logger()


class Acceptor:
    """Taker of connections from a listening socket, on the running event loop.

    Args:
        listener: A listening socket.
        give: Gets each connection, which does not block.
        has_room: Returns whether one more connection may be open.
    """

    def __init__(
        self, listener: socket.socket, give: Callable[[socket.socket], None], has_room: Callable[[], bool]
    ) -> None:
        listener.setblocking(False)
        self._listener = listener
        self._give = give
        self._has_room = has_room
        self._loop = asyncio.get_running_loop()
        self._waiting: asyncio.TimerHandle | None = None
        self._is_failing = False

    def start(self) -> None:
        """Accept connections from now on."""
        self._waiting = None
        self._loop.add_reader(self._listener, self._accept)

    def close(self) -> None:
        """Accept no more, and close the listening socket."""
        self._loop.remove_reader(self._listener)
        if self._waiting is not None:
            self._waiting.cancel()
        self._listener.close()

    def _accept(self) -> None:
        for _ in range(_MOST_A_TURN):
            if not self._has_room():
                self._pause(_LOOK_AGAIN_S)
                return
            try:
                connection, _ = self._listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                if not self._is_failing:
                    log.warning("accept failed", reason=str(error))
                self._is_failing = True
                self._pause(_AFTER_ERROR_S)
                return
            self._is_failing = False
            connection.setblocking(False)
            self._give(connection)

    def _pause(self, pause_s: float) -> None:
        self._loop.remove_reader(self._listener)
        self._waiting = self._loop.call_later(pause_s, self.start)
