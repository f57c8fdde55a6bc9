"""A supervisor in this process. Its workers are real processes that play a service."""

import asyncio
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from unittest.mock import Mock

import pytest
from structlog.testing import capture_logs
from support.versions import publish_example
from support.worker_programs import play_service

from service.errors import DeviceUnavailable, EngineFailed
from service.logs import LogWriter
from service.workers.board import Board
from service.workers.process import Program, WorkerProcess
from service.workers.supervisor import MAX_DEATHS, Plan, Supervisor

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(sys.platform != "linux", reason="several workers need Linux"),
]


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.01)


class Replica:
    """A supervisor that runs, and how its clients see it."""

    def __init__(self, supervisor: Supervisor, board: Board, port: int) -> None:
        self.supervisor, self.board, self.port = supervisor, board, port

    async def connect(self) -> int:
        """Number of the worker that answers a new connection."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        answer = await reader.read()
        writer.close()
        return int(answer)

    async def until_ready(self) -> None:
        await until(lambda: all(slot.can_answer() for slot in self.board.workers))


@asynccontextmanager
async def replica(folder: Path, mood: str = "well") -> AsyncIterator[Replica]:
    store = folder / "model_store"
    publish_example(store)
    board = Board(folder, 2)
    program = Program(play_service, "support.worker_programs", mood)
    workers = [WorkerProcess(number, board) for number in range(2)]
    for worker in workers:
        worker.spawn(program)
    listener = socket.create_server(("127.0.0.1", 0))
    plan = Plan(64, store, "flowers", 0.05, 0.0, 5.0)
    log_writer = Mock(spec=LogWriter, num_dropped=3)
    supervisor = Supervisor(plan, board, program, workers, listener, log_writer, Mock())
    running = asyncio.create_task(supervisor.run())
    try:
        yield Replica(supervisor, board, listener.getsockname()[1])
    finally:
        supervisor.force()
        await running


async def test_each_ready_worker_gets_connections(tmp_path: Path) -> None:
    async with replica(tmp_path) as running:
        await running.until_ready()
        assert {await running.connect() for _ in range(8)} == {0, 1}
        own = running.board.supervisor
        assert (own.pid, own.num_dropped, own.is_started) == (os.getpid(), 3, 1)


async def test_a_worker_that_ended_has_a_successor(tmp_path: Path) -> None:
    async with replica(tmp_path) as running:
        await running.until_ready()
        ended = running.board.workers[0].pid
        with capture_logs() as events:
            os.kill(ended, signal.SIGKILL)
            await until(lambda: running.board.workers[0].pid not in (0, ended))
        await running.until_ready()
        assert {await running.connect() for _ in range(8)} == {0, 1}
        assert [(event["pid"], event["how"]) for event in events if event["event"] == "worker ended"] == [
            (ended, "SIGKILL")
        ]


async def test_too_many_deaths_are_the_end(tmp_path: Path) -> None:
    async with replica(tmp_path) as running:
        for _ in range(MAX_DEATHS):
            await running.until_ready()
            ended = running.board.workers[1].pid
            os.kill(ended, signal.SIGKILL)
            await until(lambda: running.board.workers[1].pid != ended)  # noqa: B023 - awaited at once
        await until(lambda: running.supervisor.failure is not None)
        assert isinstance(running.supervisor.failure, EngineFailed)


async def test_a_failure_of_any_worker_keeps_its_kind(tmp_path: Path) -> None:
    async with replica(tmp_path, "sick") as running:
        await until(lambda: running.supervisor.failure is not None)
        assert isinstance(running.supervisor.failure, DeviceUnavailable)


@pytest.mark.parametrize(("number", "delay_s"), [(signal.SIGINT, 0.0), (signal.SIGTERM, 0.0)])
async def test_a_stop_drains_all_workers(tmp_path: Path, number: signal.Signals, delay_s: float) -> None:
    async with replica(tmp_path) as running:
        await running.until_ready()
        with capture_logs() as events:
            running.supervisor.stop(number)
            assert running.supervisor.is_draining
            await until(lambda: running.supervisor.num_unanswered == 4)
        draining = [event for event in events if event["event"] == "draining"]
        assert [(event["signal"], event["delay_s"]) for event in draining] == [(number.name, delay_s)]
    assert running.supervisor.failure is None
