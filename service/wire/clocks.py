"""Clocks of connections. The app has clocks of its own for a request's body and for its answer.

Source: nginx, `client_header_timeout` and `keepalive_timeout`.
"""

import asyncio
import enum
from collections.abc import Callable, Collection
from typing import Protocol

from service.wire.linger import linger_s

HEAD_TIMEOUT_S = 10.0
"""Time from the connection, or from the first byte of a further request, to the end of its head, in seconds."""

TICK_S = 0.5
"""Time between two looks at all clocks, in seconds. A timeout may last so much longer."""


class State(enum.Enum):
    """State of a connection that has a clock here."""

    HEAD = enum.auto()
    OWED_BODY = enum.auto()
    BETWEEN = enum.auto()


class Clock:
    """Clock of one connection. All times are in seconds, and `time` is the event loop's."""

    def __init__(self, keep_alive_s: float, is_draining: Callable[[], bool], time: Callable[[], float]) -> None:
        self._keep_alive_s = keep_alive_s
        self._is_draining = is_draining
        self._time = time
        self._running: tuple[State, int] | None = None
        self._since = 0.0

    def enter(self, state: State | None, message: int = 0) -> None:
        """Start the clock of a state, unless it runs already for the request of this number. None stops it."""
        running = None if state is None else (state, message)
        if running != self._running:
            self._running, self._since = running, self._time()

    def has_run_out(self, now: float) -> bool:
        """Return whether the present state has lasted too long at `now` (seconds)."""
        return self._running is not None and now - self._since >= self._timeout_s(self._running[0])

    def _timeout_s(self, state: State) -> float:
        if state is State.BETWEEN:
            return self._keep_alive_s
        return linger_s(is_draining=self._is_draining()) if state is State.OWED_BODY else HEAD_TIMEOUT_S


class Connection(Protocol):
    """A connection with clocks."""

    def check(self, now: float) -> None:
        """End the connection where a clock of it has run out at `now` (seconds)."""


async def watch_clocks(connections: Collection[Connection]) -> None:
    """Check all connections twice a second, until cancelled. Timers for each request would cost more."""
    loop = asyncio.get_running_loop()
    while True:
        await asyncio.sleep(TICK_S)
        for connection in tuple(connections):
            connection.check(loop.time())
