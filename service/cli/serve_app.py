"""One serving process: an event loop with the app. It is alone, or a worker of a supervisor."""

import asyncio
import functools
import gc
import signal
import socket
import sys
from collections.abc import Callable
from typing import NoReturn

import structlog

from service.api.app import create_app
from service.api.metrics import share_metrics
from service.api.refusals import Refusals
from service.api.service import Service
from service.cli.leaving import is_thread_at_work, leave, on_end_signals
from service.cli.listening import greet, url_of
from service.errors import EngineFailed, FlowersError
from service.logs import LogWriter, configure_logging
from service.settings import ServeSettings
from service.store.versions import StoredVersion
from service.store.watch import Refusal, Taken
from service.wire.acceptor import Acceptor
from service.wire.server import Server, make_config
from service.workers.replica import WorkerReplica
from service.workers.worker import Place, Seat, Worker

# Python's own 5 ms are too long. A decoder that waits for the event loop leaves a core idle meanwhile.
_SWITCH_INTERVAL_S = 0.0005
# Python's own 700 are the objects of a few requests. Hardly any are in cycles.
_OBJECTS_BETWEEN_COLLECTIONS = 10_000

log: structlog.typing.FilteringBoundLogger = structlog.get_logger()


def tune_process() -> Callable[[], None]:
    """Tune the interpreter for serving. Nothing else in the package changes the process.

    Return a function to call when an engine is loaded. Its first call hides all objects so far from the collector. A
    collection that passes over TensorFlow's objects would stop Python for 180 ms instead of 1 ms.
    """
    sys.setswitchinterval(_SWITCH_INTERVAL_S)
    gc.set_threshold(_OBJECTS_BETWEEN_COLLECTIONS)
    return functools.cache(gc.freeze)


def serve_alone(settings: ServeSettings, listener: socket.socket, log_writer: LogWriter) -> int:
    """Serve in this process until a signal. Return the exit code.

    Raises:
        FlowersError: No version can mend it, such as a missing device.
    """
    process = _Alone(settings, listener, log_writer)
    process.server.run()
    if isinstance(process.failure, EngineFailed):
        log.error("service failed", reason=str(process.failure))
        leave(1)
    if process.failure is not None:
        raise process.failure
    log.info("service stopped", unanswered=process.num_unanswered)
    if process.num_unanswered or is_thread_at_work():
        leave(1 if process.num_unanswered else 0)
    return 0


class _Alone:
    """The process without a supervisor. It accepts connections, follows the store, and ends by signals."""

    def __init__(self, settings: ServeSettings, listener: socket.socket, log_writer: LogWriter) -> None:
        app = create_app(
            settings,
            on_fatal=self._fail,
            on_loaded=tune_process(),
            num_dropped_lines=lambda: log_writer.num_dropped,
        )
        self._service: Service = app.state.service
        self._settings = settings
        self._listener = listener
        self._draining: asyncio.Task[None] | None = None
        self.server = Server(make_config(app, Refusals(self._service)), self._start)
        self.failure: FlowersError | None = None
        self.num_unanswered = 0

    def _fail(self, error: FlowersError) -> None:
        self.failure = error
        self.server.should_exit = True

    def _start(self) -> None:
        on_end_signals(self._on_signal)
        self._acceptor = Acceptor(
            self._listener,
            self.server.adopt,
            lambda: self.server.num_connections < self._settings.max_connections,
        )
        self._acceptor.start()
        log.info("service listening", url=url_of(self._listener))
        greet(self._listener, self._settings.log_format)

    def _on_signal(self, number: signal.Signals) -> None:
        if self._draining is not None:
            log.warning("exit forced", signal=number.name)
            leave(128 + number)
        is_ready = self._service.health.is_ready
        # Ctrl-C comes from a person, and an unready service gets no traffic. No balancer has to notice first.
        delay_s = self._settings.drain_delay_s if number != signal.SIGINT and is_ready else 0.0
        log.info("draining", signal=number.name, delay_s=delay_s, in_flight=self._service.admission.num_requests)
        self._draining = asyncio.create_task(self._drain(delay_s))

    async def _drain(self, delay_s: float) -> None:
        self.num_unanswered = await self._service.drain(delay_s, self._settings.drain_timeout_s)
        # uvicorn drops a connection whose request it has not read yet. So no new ones are taken first.
        self._acceptor.close()
        await self.server.end()


def serve_as_worker(settings: ServeSettings, place: Place) -> NoReturn:
    """Serve the connections that the supervisor hands over, until it ends this process or is gone."""
    seat = place.take_up()
    log_writer = configure_logging(settings.log_format, place.log)
    share_metrics(place.folder, place.number)
    try:
        tenant = _Tenant(settings, seat, log_writer)
    except FlowersError as error:  # such as a file of keys that is missing
        seat.report_failure(error, is_mendable=False)
        leave(1)
    tenant.server.run()
    leave(0 if tenant.failure is None else 1)


class _Tenant:
    """The service in a worker. It does what the supervisor says."""

    def __init__(self, settings: ServeSettings, seat: Seat, log_writer: LogWriter) -> None:
        self.failure: FlowersError | None = None
        self._settings = settings
        self._seat = seat
        replica = WorkerReplica(seat.board, seat.place.number)
        self._worker = Worker(
            seat,
            self,
            num_dropped_lines=lambda: log_writer.num_dropped,
            on_orphaned=functools.partial(leave, 1),
        )
        app = create_app(
            settings,
            replica=replica,
            on_fatal=self._fail,
            on_loaded=tune_process(),
            num_dropped_lines=replica.num_dropped_lines,
        )
        self._service: Service = app.state.service
        config = make_config(app, Refusals(self._service))
        self.server = Server(config, self._worker.start, self._worker.count_connections)

    def _fail(self, error: FlowersError) -> None:
        self.failure = error
        self._seat.report_failure(error, is_mendable=isinstance(error, EngineFailed))
        self.server.should_exit = True

    def is_ready(self) -> bool:
        """Return whether the model can answer. A shutdown does not matter."""
        return not self._service.health.is_blocked

    def adopt(self, connection: socket.socket) -> None:
        """Serve a connection."""
        self.server.adopt(connection)

    async def open(self, stored: StoredVersion) -> Taken | Refusal:
        """Load a version beside the live one."""
        return await self._service.live_model.open(stored)

    async def switch(self) -> None:
        """Serve the version that was opened."""
        await self._service.live_model.switch()

    def forget(self) -> None:
        """Close the version that was opened."""
        self._service.live_model.forget()

    def note_store(self, refused: dict[int, str], num_taken: int, num_refused: int, waiting: str) -> None:
        """Take over what the supervisor knows about the store, for answers and metrics."""
        watch = self._service.live_model.watch
        watch.refused, watch.num_taken, watch.num_refused = refused, num_taken, num_refused
        if waiting:
            self._service.live_model.report_waiting(waiting)

    async def drain(self, delay_s: float) -> int:
        """Refuse new requests after the delay, and answer the accepted ones. Return how many had no answer."""
        return await self._service.drain(delay_s, self._settings.drain_timeout_s)

    async def end(self) -> None:
        """End the process soon."""
        await self.server.end()
