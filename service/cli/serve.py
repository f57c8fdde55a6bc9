"""`flowers serve`: listen, answer, and stop without losing accepted requests."""

import asyncio
import errno
import functools
import gc
import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import NoReturn, cast

import structlog
import uvicorn
from fastapi import FastAPI

from service.api.app import create_app
from service.api.refusals import Refusals
from service.api.service import Service
from service.errors import EngineFailed, FlowersError
from service.logs import LogWriter, configure_logging
from service.settings import ServeSettings
from service.wire.clocks import watch_clocks
from service.wire.head_guard import HeadGuard
from service.wire.linger import Linger
from service.wire.send_limits import SendInPieces

# Longer than the 60 s of common balancers. Otherwise they may send a request just as the connection closes.
_KEEP_ALIVE_S = 75
_BACKLOG = 2048
_LAST_WORDS_S = 0.5
_GOODBYE_S = 1.0
# Python's own 5 ms are too long. A decoder that waits for the event loop leaves a core idle meanwhile.
_SWITCH_INTERVAL_S = 0.0005
# Python's own 700 are the objects of a few requests. Hardly any are in cycles.
_OBJECTS_BETWEEN_COLLECTIONS = 10_000

log: structlog.typing.FilteringBoundLogger = structlog.get_logger()


def serve(*, settings: ServeSettings | None = None) -> int:
    """Serve a model over HTTP until SIGTERM, SIGHUP or Ctrl-C.

    The socket is open at once. /startupz and /readyz say when the model is loaded. On SIGTERM or SIGHUP, /readyz turns
    false. Requests are taken for drain_delay_s more. Then new ones are refused, and accepted ones are answered. Ctrl-C
    skips the delay. A second signal ends the service at once.
    """
    settings = settings or ServeSettings()
    log_writer = configure_logging(settings.log_format)
    on_loaded = tune_process()
    listener = listen(settings.host, settings.port)
    server = _Server(settings, log_writer, on_loaded)
    server.run(sockets=[listener])
    if isinstance(server.failure, EngineFailed):
        log.error("service failed", reason=str(server.failure))
        _leave(1)
    if server.failure is not None:
        raise server.failure
    log.info("service stopped", unanswered=server.num_unanswered)
    if server.num_unanswered or _is_thread_at_work():
        _leave(1 if server.num_unanswered else 0)
    return 0


def tune_process() -> Callable[[], None]:
    """Tune the interpreter for serving. Nothing else in the package changes the process.

    Return a function to call when an engine is loaded. Its first call hides all objects so far from the collector. A
    collection that passes over TensorFlow's objects would stop Python for 180 ms instead of 1 ms.
    """
    sys.setswitchinterval(_SWITCH_INTERVAL_S)
    gc.set_threshold(_OBJECTS_BETWEEN_COLLECTIONS)
    return functools.cache(gc.freeze)


def make_config(app: FastAPI) -> uvicorn.Config:
    """Return uvicorn's configuration for `create_app`'s app behind the limits of `wire`."""
    refusals = Refusals(app.state.service)
    return uvicorn.Config(
        SendInPieces(Linger(app, is_draining=refusals.is_draining)),
        http=HeadGuard.behind(refusals),
        lifespan="on",
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        backlog=_BACKLOG,
        timeout_keep_alive=_KEEP_ALIVE_S,
        timeout_graceful_shutdown=2,  # seconds, and more than `_GOODBYE_S`: nothing is left by then
    )


class _Server(uvicorn.Server):
    """uvicorn with signals of our own. Its own handler stops accepting at once, and ends by the signal."""

    def __init__(self, settings: ServeSettings, log_writer: LogWriter, on_loaded: Callable[[], None]) -> None:
        app = create_app(
            settings, on_fatal=self.fail, on_loaded=on_loaded, num_dropped_lines=lambda: log_writer.num_dropped
        )
        super().__init__(make_config(app))
        self._service: Service = app.state.service
        self._settings = settings
        self._draining: asyncio.Task[None] | None = None
        self._watching_clocks: asyncio.Task[None] | None = None
        self.failure: FlowersError | None = None
        self.num_unanswered = 0

    def fail(self, error: FlowersError) -> None:
        """End with exit code 1 and this reason."""
        self.failure = error
        self.should_exit = True

    @property
    def _connections(self) -> set[HeadGuard]:
        return cast(set[HeadGuard], self.server_state.connections)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Replace uvicorn's, which raises the signal again after a clean stop: exit code 143."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:  # as under nohup
                loop.add_signal_handler(number, self._on_signal, number)
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Log the address. Port 0 has become a number by now."""
        await super().startup(sockets)
        self._watching_clocks = asyncio.create_task(watch_clocks(self._connections))
        for listener in sockets or []:
            host, port = listener.getsockname()[:2]
            log.info("service listening", url=f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}")

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End as uvicorn does, but abort what is still connected after `_GOODBYE_S`.

        Its task ends by itself then. uvicorn would cancel it, and log that as an error.
        """
        aborting = asyncio.create_task(self._abort_connections())
        await super().shutdown(sockets)
        aborting.cancel()

    async def _abort_connections(self) -> None:
        await asyncio.sleep(_GOODBYE_S)
        for connection in tuple(self._connections):
            connection.transport.abort()

    def _on_signal(self, number: signal.Signals) -> None:
        if self._draining is not None:
            log.warning("exit forced", signal=number.name)
            _leave(128 + number)
        is_ready = self._service.health.is_ready
        # Ctrl-C comes from a person, and an unready service gets no traffic. No balancer has to notice first.
        delay_s = self._settings.drain_delay_s if number != signal.SIGINT and is_ready else 0.0
        log.info("draining", signal=number.name, delay_s=delay_s, in_flight=self._service.admission.num_requests)
        self._draining = asyncio.create_task(self._drain(delay_s))

    async def _drain(self, delay_s: float) -> None:
        self.num_unanswered = await self._service.drain(delay_s, self._settings.drain_timeout_s)
        # uvicorn drops a connection whose request it has not read yet. So it takes no new ones first, and open ones
        # have a moment to be told that this replica is draining.
        for server in self.servers:
            server.close()
        await asyncio.sleep(_LAST_WORDS_S)
        for connection in tuple(self._connections):
            connection.unsent.abort()
        self.should_exit = True


def listen(host: str, port: int) -> socket.socket:
    """Return a bound socket. The kernel queues connections on it while the rest starts.

    Raises:
        FlowersError: The address is taken, or not of this machine.
    """
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        dual_stack = host == "::" and socket.has_dualstack_ipv6()
        return socket.create_server(address[:2], family=family, backlog=_BACKLOG, dualstack_ipv6=dual_stack)
    except (OSError, UnicodeError) as error:  # UnicodeError: what no name can be, such as a..b
        if isinstance(error, socket.gaierror | UnicodeError) or error.errno == errno.EADDRNOTAVAIL:
            reason = f"{host} is no address of this machine. Give one with --host, such as 127.0.0.1 or 0.0.0.0."
        elif error.errno == errno.EADDRINUSE:
            reason = f"Port {port} of {host} is taken. Stop its program, or choose another with --port (FLOWERS_PORT)."
        elif isinstance(error, PermissionError):
            reason = f"Port {port} needs more rights than this user has. Choose one above 1023 with --port."
        else:
            reason = f"Port {port} of {host} cannot be opened ({error.strerror}). Choose others with --host, --port."
        raise FlowersError(reason) from error


def _is_thread_at_work() -> bool:
    """Return whether a thread still computes or loads, now that all have been told to end."""
    ends_at = time.monotonic() + _LAST_WORDS_S
    threads = [
        thread for thread in threading.enumerate() if not thread.daemon and thread is not threading.main_thread()
    ]
    for thread in threads:
        thread.join(max(0.0, ends_at - time.monotonic()))
    return any(thread.is_alive() for thread in threads)


def _leave(exit_code: int) -> NoReturn:
    """End the process now. The ordinary way would wait for its threads."""
    with suppress(OSError):
        sys.stdout.flush()
    logging.shutdown()  # waits for the log, but not for long
    os._exit(exit_code)
