"""Several workers behind one address. This process is their supervisor and carries no model."""

import asyncio
import os
import signal
import socket
from typing import NoReturn

import structlog

from service.cli.leaving import leave, on_end_signals
from service.cli.listening import greet, listen, url_of
from service.errors import EngineFailed
from service.logs import LogWriter, configure_logging, takes_console
from service.machine import bounded_queue_bytes, count_cores, memory_left
from service.remote_store.puller import make_puller
from service.settings import ServeSettings
from service.workers.board import Board, replica_folder
from service.workers.process import Program, WorkerProcess, fork_workers
from service.workers.supervisor import Plan, Supervisor

log: structlog.typing.FilteringBoundLogger = structlog.get_logger()


def serve_with_workers(settings: ServeSettings, num_workers: int) -> NoReturn:
    """Serve with workers until a signal, and end the process.

    Raises:
        FlowersError: No new worker can mend it, such as a missing device.
    """
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # else NumPy starts a thread for each core when it is imported
    from service.cli.serve_app import serve_as_worker  # what is imported here, all workers share

    program = Program(serve_as_worker, "service.cli.worker_program", share_settings(settings, num_workers))
    listener = listen(settings.host, settings.port)
    with replica_folder() as folder:
        board = Board(folder, num_workers)
        workers = fork_workers(program, board, listener)
        log_writer = configure_logging(settings.log_format)  # its thread must not be there before
        if num_workers > count_cores():
            log.warning("more workers than cores", workers=num_workers, cores=count_cores())
        replica = _Replica(settings, program, workers, listener, log_writer, board)
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
    """The supervisor with the signals and the log of this process."""

    def __init__(
        self,
        settings: ServeSettings,
        program: Program,
        workers: list[WorkerProcess],
        listener: socket.socket,
        log_writer: LogWriter,
        board: Board,
    ) -> None:
        self._listener = listener
        self._log_format = settings.log_format
        self._num_workers = len(workers)
        plan = Plan(
            settings.max_connections,
            settings.store_folder,
            settings.model,
            settings.reload_interval_s,
            settings.drain_delay_s,
            settings.drain_timeout_s,
        )
        self.supervisor = Supervisor(plan, board, program, workers, listener, log_writer, self._log_address)
        self._puller = make_puller(
            settings.model_store,
            self.supervisor.watch,
            interval_s=settings.reload_interval_s,
            max_bytes=settings.max_cache_bytes,
        )
        self.forced_by = 0

    async def run(self) -> None:
        on_end_signals(self._on_signal)
        if self._puller is not None:
            self._puller.start()  # the first workers have been forked
        await self.supervisor.run()

    def _log_address(self) -> None:
        log.info("service listening", url=url_of(self._listener), workers=self._num_workers)
        greet(self._listener, self._log_format)

    def _on_signal(self, number: signal.Signals) -> None:
        if self.supervisor.is_draining:
            log.warning("exit forced", signal=number.name)
            self.forced_by = int(number)
            self.supervisor.force()
        else:
            self.supervisor.stop(number)


def share_settings(settings: ServeSettings, num_workers: int) -> ServeSettings:
    """Return the settings of one worker: its share of the threads, and the limits of all."""
    cores = max(1, (settings.engine_threads or count_cores()) // num_workers)
    return settings.model_copy(
        update={
            "workers": 1,
            "engine_threads": cores,
            "decode_threads": max(1, settings.decode_threads // num_workers) if settings.decode_threads else cores + 1,
            "max_queue_bytes": bounded_queue_bytes(settings.max_queue_bytes, memory_left()),
            "log_format": "console" if takes_console(settings.log_format) else "json",
        }
    )
