"""One worker as the supervisor sees it: real processes with a program of the tests."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import cast

import pytest
from conftest import REPOSITORY
from support.worker_programs import obey

from service.errors import WorkerEnded
from service.logs import LogWriter
from service.workers.board import FROZEN_AFTER_S, Board
from service.workers.process import Program, WorkerProcess, describe_exit

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(sys.platform != "linux", reason="several workers need Linux"),
]


class Log:
    """What workers have written, line by line."""

    def __init__(self) -> None:
        self.lines: list[bytes] = []
        self.changed = asyncio.Event()

    def write_lines(self, lines: Iterable[bytes]) -> None:
        self.lines.extend(lines)
        self.changed.set()

    async def until_lines(self, num_lines: int) -> list[bytes]:
        while len(self.lines) < num_lines:
            self.changed.clear()
            await self.changed.wait()
        return self.lines


def program(greeting: str = "hello") -> Program:
    return Program(obey, "support.worker_programs", greeting)


class Nursery:
    """A place for one worker, and what it has reported. It clears up after the worker, as a supervisor does."""

    def __init__(self, folder: Path) -> None:
        self.board = Board(folder, 2)
        self.log = Log()
        self.failures: list[tuple[str, str]] = []
        self.workers: list[tuple[WorkerProcess, asyncio.Task[None]]] = []

    def start(self, greeting: str = "hello") -> WorkerProcess:
        worker = WorkerProcess(1, self.board)
        worker.spawn(program(greeting))
        worker.begin(cast(LogWriter, self.log), lambda kind, reason: self.failures.append((kind, reason)))
        self.workers.append((worker, asyncio.create_task(self._clear_up(worker))))
        return worker

    async def _clear_up(self, worker: WorkerProcess) -> None:
        while worker.exit_code is None:
            await asyncio.sleep(0.01)
        await worker.end()


@pytest.fixture
async def nursery(tmp_path: Path) -> AsyncIterator[Nursery]:
    nursery = Nursery(tmp_path)
    yield nursery
    for worker, clearing_up in nursery.workers:
        worker.kill()
        await clearing_up


@pytest.fixture
async def worker(nursery: Nursery) -> WorkerProcess:
    """A worker that has said hello."""
    worker = nursery.start()
    await worker.has_said_hello.wait()
    return worker


async def test_a_worker_is_another_process_with_its_slot(nursery: Nursery, worker: WorkerProcess) -> None:
    answer = await worker.ask("echo", text="a")
    assert answer["greeting"] == "hello"
    assert answer["pid"] == nursery.board.workers[1].pid != os.getpid()
    assert worker.is_running
    assert worker.exit_code is None


async def test_each_question_has_its_own_answer(worker: WorkerProcess) -> None:
    texts = [f"text {number}" for number in range(50)]
    answers = await asyncio.gather(*(worker.ask("echo", text=text) for text in texts))
    assert [answer["text"] for answer in answers] == texts


async def test_an_abandoned_question_does_not_disturb_others(worker: WorkerProcess) -> None:
    asking = asyncio.create_task(worker.ask("echo", text="first"))
    await asyncio.sleep(0)
    asking.cancel()
    assert (await worker.ask("echo", text="second"))["text"] == "second"


async def test_the_end_answers_open_questions(worker: WorkerProcess) -> None:
    asking = asyncio.create_task(worker.ask("say nothing"))
    await worker.ask("echo", text="the question before has arrived")
    worker.kill()
    with pytest.raises(WorkerEnded, match="Worker 1 has ended"):
        await asking
    with pytest.raises(WorkerEnded):
        await worker.ask("echo", text="too late")
    assert (worker.is_running, worker.exit_code) == (False, -signal.SIGKILL)


async def test_an_exit_code_is_kept(worker: WorkerProcess) -> None:
    with pytest.raises(WorkerEnded):
        await worker.ask("exit", exit_code=5)
    assert worker.exit_code == 5


async def test_a_worker_without_hello_ends_too(nursery: Nursery) -> None:
    worker = nursery.start("end")
    await worker.ended.wait()
    assert (worker.exit_code, worker.has_said_hello.is_set()) == (3, False)


async def test_half_an_answer_does_not_hide_the_end(worker: WorkerProcess) -> None:
    with pytest.raises(WorkerEnded):
        await worker.ask("break off")


async def test_lines_of_the_log_come_whole(nursery: Nursery, worker: WorkerProcess) -> None:
    lines = [f"line {number} {'x' * (number * 37 % 900)}" for number in range(300)]
    text = "".join(f"{line}\n" for line in lines)
    for start in range(0, len(text), 1000):
        await worker.ask("log", text=text[start : start + 1000])
    assert await nursery.log.until_lines(300) == [line.encode() for line in lines]


async def test_last_words_without_an_end_are_logged(nursery: Nursery, worker: WorkerProcess) -> None:
    await worker.ask("log", text="a line\nterminate called")
    worker.kill()
    assert await nursery.log.until_lines(2) == [b"a line", b"terminate called"]


async def test_a_connection_is_handed_over(worker: WorkerProcess) -> None:
    client, connection = socket.socketpair()
    with client, connection:
        assert worker.give(connection)
        assert worker.num_open == 1
        await worker.ask("take a connection")
        assert client.recv(100) == b"served"


async def test_connections_under_way_count_as_open(nursery: Nursery, worker: WorkerProcess) -> None:
    slot = nursery.board.workers[1]
    client, connection = socket.socketpair()
    with client, connection:
        for _ in range(3):
            worker.give(connection)
        assert worker.num_open == 3
        slot.num_received, slot.num_open = 2, 2
        assert worker.num_open == 3
        slot.num_received, slot.num_open = 3, 1
        assert worker.num_open == 1


async def test_a_full_channel_takes_no_connection(worker: WorkerProcess) -> None:
    client, connection = socket.socketpair()
    with client, connection:
        num_given = 0
        while worker.give(connection):
            num_given += 1
        assert 0 < num_given == worker.num_open


async def test_a_channel_without_room_is_not_full_yet(nursery: Nursery, worker: WorkerProcess) -> None:
    client, connection = socket.socketpair()
    with client, connection:
        while worker.has_room:
            assert worker.give(connection)
        assert worker.give(connection)
        nursery.board.workers[1].num_received = worker.num_open // 2
        assert worker.has_room


async def test_a_dead_worker_takes_no_connection(worker: WorkerProcess) -> None:
    worker.kill()
    await worker.ended.wait()
    client, connection = socket.socketpair()
    with client, connection:
        assert not worker.give(connection)


async def test_a_silent_worker_does_not_run(worker: WorkerProcess) -> None:
    worker.slot.beat_ns -= int(FROZEN_AFTER_S * 1e9)
    assert not worker.is_running
    worker.slot.beat()
    assert worker.is_running


async def test_only_unmendable_failures_are_passed_on(nursery: Nursery, worker: WorkerProcess) -> None:
    await worker.ask("fail", is_mendable=True)
    assert (worker.reason, nursery.failures) == ("It hangs.", [])
    await worker.ask("fail", is_mendable=False)
    assert nursery.failures == [("DeviceUnavailable", "There is no GPU.")]


async def test_a_successor_keeps_what_was_counted(nursery: Nursery, tmp_path: Path) -> None:
    slot = nursery.board.workers[1]
    slot.num_open, slot.cpu_us = 9, 1234
    kept, left = [tmp_path / "counter_1.db", tmp_path / "gauge_livesum_0.db"], tmp_path / "gauge_livesum_1.db"
    for path in (*kept, left):
        path.touch()
    worker = nursery.start()
    assert (slot.num_open, slot.cpu_us, worker.num_open) == (0, 1234, 0)
    assert [path.exists() for path in (*kept, left)] == [True, True, False]


FORKED_AND_SPAWNED = """
import asyncio, os, signal, socket, sys
from pathlib import Path
from unittest.mock import Mock
from support.worker_programs import obey
from service.workers.board import Board
from service.workers.process import Program, WorkerProcess, fork_workers

async def main(forked):
    spawned = WorkerProcess(1, board)
    spawned.spawn(program)
    for worker in (*forked, spawned):
        worker.begin(Mock(), Mock())
        await worker.has_said_hello.wait()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        os.killpg(0, number)
    for worker in (*forked, spawned):
        answer = await worker.ask("echo", text="here")
        print(answer["text"], answer["pid"] == worker.slot.pid != os.getpid(), flush=True)
    address = listener.getsockname()
    listener.close()
    print("refused" if socket.socket().connect_ex(address) else "taken", flush=True)
    os._exit(0)

board, program = Board(Path(sys.argv[1]), 2), Program(obey, "support.worker_programs", "hello")
listener = socket.create_server(("127.0.0.1", 0))
forked = fork_workers(program, board, listener)[:1]
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    signal.signal(number, lambda *_: None)
asyncio.run(main(forked))
"""


def test_workers_leave_signals_and_listener_to_the_supervisor(tmp_path: Path) -> None:
    command = [sys.executable, "-c", FORKED_AND_SPAWNED, str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": f"{REPOSITORY}:{REPOSITORY / 'tests'}"}
    done = subprocess.run(
        command, env=environment, start_new_session=True, stdout=subprocess.PIPE, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "here True\nhere True\nrefused\n")


@pytest.mark.parametrize(
    ("exit_code", "text"),
    [(0, "exit code 0"), (1, "exit code 1"), (-9, "SIGKILL"), (-11, "SIGSEGV"), (-99, "exit code -99")],
)
def test_an_end_by_a_signal_has_its_name(exit_code: int, text: str) -> None:
    assert describe_exit(exit_code) == text
