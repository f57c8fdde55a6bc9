"""uvicorn behind the limits of this room. It has no signals and no listening socket of its own."""

import asyncio
import socket
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, cast

import uvicorn
from starlette.types import ASGIApp

from service.wire.clocks import watch_clocks
from service.wire.head_guard import HeadGuard
from service.wire.heads import Hooks
from service.wire.linger import Linger
from service.wire.send_limits import SendInPieces

BACKLOG = 2048
"""Connections that the kernel queues before they are accepted."""

# Longer than the 60 s of common balancers. Otherwise they may send a request just as the connection closes.
_KEEP_ALIVE_S = 75
_LAST_WORDS_S = 0.5
_GOODBYE_S = 1.0


def make_config(app: ASGIApp, hooks: Hooks) -> uvicorn.Config:
    """Return uvicorn's configuration for an app behind the limits of this room."""
    return uvicorn.Config(
        SendInPieces(Linger(app, is_draining=hooks.is_draining)),
        http=HeadGuard.behind(hooks),
        lifespan="on",
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        backlog=BACKLOG,
        timeout_keep_alive=_KEEP_ALIVE_S,
        timeout_graceful_shutdown=2,  # seconds, and more than `_GOODBYE_S`: nothing is left by then
    )


class Server(uvicorn.Server):
    """Server of connections that `adopt` gets.

    Args:
        config: As `make_config` makes it.
        on_started: Called on the event loop when the app has started.
        on_connections: Called with the number of open connections when it changes.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        on_started: Callable[[], None],
        on_connections: Callable[[int], None] = lambda _: None,
    ) -> None:
        super().__init__(config)
        self.server_state.connections = _Connections(self._on_added, self._report_connections)
        self._on_started = on_started
        self._on_connections = on_connections
        self._num_adopting = 0
        self._tasks: set[asyncio.Task[Any]] = set()

    @property
    def connections(self) -> set[HeadGuard]:
        """The open connections."""
        return cast(set[HeadGuard], self.server_state.connections)

    @property
    def num_connections(self) -> int:
        """Number of open connections, those included that are being taken over."""
        return len(self.connections) + self._num_adopting

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture none. The caller has handlers of its own."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:  # noqa: ARG002 - uvicorn's
        """Start the app. There is nothing to listen on."""
        await super().startup([])
        self._keep(watch_clocks(self.connections))
        self._on_started()

    def adopt(self, connection: socket.socket) -> None:
        """Serve a connection that has been accepted. It does not block."""
        self._num_adopting += 1
        self._report_connections()
        self._keep(self._serve_connection(connection))

    async def end(self) -> None:
        """End soon. Open connections have a moment to be told that this replica is draining."""
        await asyncio.sleep(_LAST_WORDS_S)
        for connection in tuple(self.connections):
            connection.unsent.abort()
        self.should_exit = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:  # noqa: ARG002 - uvicorn's
        """End as uvicorn does, but abort what is still connected after `_GOODBYE_S`.

        Its task ends by itself then. uvicorn would cancel it, and log that as an error.
        """
        aborting = asyncio.create_task(self._abort_connections())
        await super().shutdown([])
        aborting.cancel()

    async def _abort_connections(self) -> None:
        await asyncio.sleep(_GOODBYE_S)
        for connection in tuple(self.connections):
            connection.transport.abort()

    async def _serve_connection(self, connection: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        try:
            await loop.connect_accepted_socket(self._make_protocol, connection)
        except OSError:  # the client has gone
            connection.close()
            self._num_adopting -= 1
            self._report_connections()

    def _make_protocol(self) -> asyncio.Protocol:
        return self.config.http_protocol_class(  # type: ignore[call-arg]
            config=self.config, server_state=self.server_state, app_state=self.lifespan.state
        )

    def _on_added(self) -> None:
        self._num_adopting -= 1  # it is counted among the connections from now on

    def _report_connections(self) -> None:
        self._on_connections(self.num_connections)

    def _keep(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


class _Connections(set[Any]):
    """Set of uvicorn's protocols. It tells when one comes, and when one has gone."""

    def __init__(self, on_added: Callable[[], None], on_gone: Callable[[], None]) -> None:
        super().__init__()
        self._on_added = on_added
        self._on_gone = on_gone

    def add(self, protocol: Any) -> None:
        super().add(protocol)
        self._on_added()

    def discard(self, protocol: Any) -> None:
        super().discard(protocol)
        self._on_gone()
