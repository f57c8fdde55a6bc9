"""Several workers behind one address. This process is their supervisor and carries no model."""

import asyncio
import signal
import socket

import structlog

from service.cli.leaving import leave, on_end_signals
from service.cli.listening import url_of
from service.cli.worker_program import run_worker
from service.errors import EngineFailed
from service.logs import LogWriter
from service.machine import bounded_queue_bytes, count_cores, memory_left
from service.settings import ServeSettings
from service.workers.board import Board, replica_folder
from service.workers.process import Origin
from service.workers.supervisor import Plan, Supervisor

_MODULES = ["service.cli.serve_app"]  # imported once for all workers

log: structlog.typing.FilteringBoundLogger = structlog.get_logger()


def serve_with_workers(
    settings: ServeSettings, num_workers: int, listener: socket.socket, log_writer: LogWriter
) -> int:
    """Serve with workers until a signal. Return the exit code.

    Raises:
        FlowersError: No new worker can mend it, such as a missing device.
    """
    with replica_folder() as folder:
        replica = _Replica(settings, num_workers, listener, log_writer, Board(folder, num_workers))
        asyncio.run(replica.run())
    supervisor = replica.supervisor
    if replica.forced_by:
        leave(128 + replica.forced_by)
    if isinstance(supervisor.failure, EngineFailed):
        log.error("service failed", reason=str(supervisor.failure))
        leave(1)
    if supervisor.failure is not None:
        raise supervisor.failure
    log.info("service stopped", unanswered=supervisor.num_unanswered)
    leave(1 if supervisor.num_unanswered else 0)


class _Replica:
    def __init__(
        self, settings: ServeSettings, num_workers: int, listener: socket.socket, log_writer: LogWriter, board: Board
    ) -> None:
        self._settings = settings
        self._num_workers = num_workers
        self._listener = listener
        self._log_writer = log_writer
        self._board = board
        self._origin = Origin(
            run_worker, (share_settings(settings, num_workers, is_console=log_writer.is_console),), _MODULES
        )
        self.forced_by = 0

    async def run(self) -> None:
        settings = self._settings
        plan = Plan(
            self._num_workers,
            settings.max_connections,
            settings.model_store,
            settings.model,
            settings.reload_interval_s,
            settings.drain_delay_s,
            settings.drain_timeout_s,
        )
        self.supervisor = Supervisor(
            plan, self._board, self._origin, self._listener, self._log_writer, self._log_address
        )
        on_end_signals(self._on_signal)
        await self.supervisor.run()

    def _log_address(self) -> None:
        log.info("service listening", url=url_of(self._listener), workers=self._num_workers)

    def _on_signal(self, number: signal.Signals) -> None:
        if self.supervisor.is_draining:
            log.warning("exit forced", signal=number.name)
            self.forced_by = int(number)
            self.supervisor.force()
        else:
            self.supervisor.stop(number)


def share_settings(settings: ServeSettings, num_workers: int, *, is_console: bool) -> ServeSettings:
    """Return the settings of one worker: its share of the threads, and the limits of all."""
    cores = max(1, (settings.engine_threads or count_cores()) // num_workers)
    return settings.model_copy(
        update={
            "workers": 1,
            "engine_threads": cores,
            "decode_threads": max(1, settings.decode_threads // num_workers) if settings.decode_threads else cores + 1,
            "max_queue_bytes": bounded_queue_bytes(settings.max_queue_bytes, memory_left()),
            "log_format": "console" if is_console else "json",
        }
    )
