"""Worker's side of a replica: its messages, its connections, its slot. The test plays the supervisor."""

import asyncio
import json
import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from conftest import REPOSITORY
from structlog.testing import capture_logs
from support.processes import is_gone, wait_until

from service.errors import EngineFailed
from service.store.versions import StoredVersion
from service.store.watch import Refusal, Taken
from service.workers.board import Board
from service.workers.worker import Place, Seat, Worker

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(sys.platform != "linux", reason="several workers need Linux"),
]


class Tenant:
    """A service that notes what it is told."""

    def __init__(self) -> None:
        self.ready = False
        self.outcome: Taken | Refusal | Exception = Taken({"engine": "fake"}, "A GPU stays unused.")
        self.told: list[Any] = []
        self.connections: list[socket.socket] = []
        self.changed = asyncio.Event()
        self.may_switch = asyncio.Event()
        self.may_switch.set()

    def is_ready(self) -> bool:
        return self.ready

    def adopt(self, connection: socket.socket) -> None:
        self.connections.append(connection)
        self.changed.set()

    async def open(self, stored: StoredVersion) -> Taken | Refusal:
        self.told.append(stored)
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return self.outcome

    async def switch(self) -> None:
        await self.may_switch.wait()
        self.told.append("switch")

    def forget(self) -> None:
        self.told.append("forget")

    def note_store(self, refused: dict[int, str], num_taken: int, num_refused: int, waiting: str) -> None:
        self.told.append((refused, num_taken, num_refused, waiting))

    async def drain(self, delay_s: float) -> int:
        self.told.append(delay_s)
        return 3

    async def end(self) -> None:
        self.told.append("end")
        self.changed.set()


class Desk:
    """A worker that has started, and the supervisor's ends of its channels."""

    def __init__(self, folder: Path) -> None:
        self.board = Board(folder, 2)
        self.slot = self.board.workers[1]
        self.tenant = Tenant()
        self.orphaned = asyncio.Event()
        self.num_dropped = 0
        self.sockets = ExitStack()
        self.connections, connections = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.control, control = socket.socketpair()
        log, far_log = socket.socketpair()
        for end in (self.connections, connections, self.control, control, log, far_log):
            self.sockets.enter_context(end)
        self.control.setblocking(False)
        place = Place(1, 2, folder, connections.fileno(), control.fileno(), far_log.fileno())
        self.seat = Seat(place, self.board, connections, control)
        self.unread = b""
        self.is_started = False

    def start(self) -> Worker:
        self.is_started = True
        worker = Worker(
            self.seat,
            self.tenant,
            num_dropped_lines=lambda: self.num_dropped,
            on_orphaned=self.orphaned.set,
        )
        worker.start()
        return worker

    async def send(self, *commands: dict[str, Any]) -> None:
        lines = "".join(f"{json.dumps(command)}\n" for command in commands)
        await asyncio.get_running_loop().sock_sendall(self.control, lines.encode())

    async def read(self) -> dict[str, Any]:
        while b"\n" not in self.unread:
            piece = await asyncio.get_running_loop().sock_recv(self.control, 65536)
            assert piece, "the worker has closed its channel"
            self.unread += piece
        line, _, self.unread = self.unread.partition(b"\n")
        message: dict[str, Any] = json.loads(line)
        return message

    async def ask(self, **command: Any) -> dict[str, Any]:
        await self.send({"id": 7, **command})
        answer = await self.read()
        assert answer.pop("id") == 7
        return answer

    def give(self, connection: socket.socket) -> None:
        socket.send_fds(self.connections, [b"c"], [connection.fileno()])

    async def until_received(self, num_connections: int) -> None:
        while self.slot.num_received < num_connections:
            await asyncio.sleep(0)

    def close(self) -> None:
        """End as a supervisor that was killed."""
        self.connections.close()
        self.control.close()


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    desk = Desk(tmp_path)
    with desk.sockets:
        yield desk
        for connection in desk.tenant.connections:
            connection.close()
        desk.close()
        if desk.is_started:
            await desk.orphaned.wait()


@pytest.fixture
async def started(desk: Desk) -> Desk:
    """It has said hello."""
    desk.start()
    assert await desk.read() == {"hello": os.getpid()}
    return desk


OPEN = {"do": "open", "model": "flowers", "version": 3, "folder": "store/flowers/3", "pinned": True}


async def test_a_version_is_opened_as_described(started: Desk) -> None:
    answer = await started.ask(**OPEN)
    assert answer == {"taken": {"engine": {"engine": "fake"}, "warning": "A GPU stays unused."}}
    assert started.tenant.told == [StoredVersion("flowers", 3, Path("store/flowers/3"), True)]


async def test_a_refusal_is_sent_whole(started: Desk) -> None:
    refusal = started.tenant.outcome = Refusal("It is bad.", "a cause", is_passing=True)
    assert Refusal(**(await started.ask(**OPEN))["refusal"]) == refusal


async def test_an_exception_is_answered_as_an_error(started: Desk) -> None:
    started.tenant.outcome = ZeroDivisionError("a surprise")
    with capture_logs() as events:
        assert await started.ask(**OPEN) == {"error": "ZeroDivisionError('a surprise')"}
        assert await started.ask(do="forget") == {}
    assert [(event["event"], event["command"]) for event in events] == [("command failed", "open")]


async def test_each_command_reaches_the_tenant(started: Desk) -> None:
    assert await started.ask(do="switch") == {}
    assert await started.ask(do="forget") == {}
    refused = {"2": "It is bad."}
    assert await started.ask(do="note", refused=refused, num_taken=4, num_refused=5, waiting="Wait.") == {}
    assert await started.ask(do="drain", delay_s=0.5) == {"num_unanswered": 3}
    assert started.tenant.told == ["switch", "forget", ({2: "It is bad."}, 4, 5, "Wait."), 0.5]


async def test_a_slow_command_delays_no_other(started: Desk) -> None:
    started.tenant.may_switch.clear()
    await started.send({"id": 1, "do": "switch"}, {"id": 2, "do": "forget"})
    assert await started.read() == {"id": 2}
    started.tenant.may_switch.set()
    assert await started.read() == {"id": 1}


async def test_the_end_is_answered_before_it_comes(started: Desk) -> None:
    assert await started.ask(do="end") == {}
    await started.tenant.changed.wait()
    assert started.tenant.told == ["end"]


async def test_the_slot_is_written_before_an_answer(started: Desk) -> None:
    """Else the supervisor would give no connection to a worker that has just become ready."""
    started.slot.beat_ns = 0
    started.tenant.ready = True
    await started.ask(do="switch")
    assert started.slot.can_answer()


async def test_a_connection_arrives_open_and_nonblocking(started: Desk) -> None:
    client, connection = (started.sockets.enter_context(end) for end in socket.socketpair())
    started.give(connection)
    connection.close()
    await started.until_received(1)
    (received,) = started.tenant.connections
    assert not received.getblocking()
    client.sendall(b"a request")
    assert received.recv(100) == b"a request"


async def test_a_connection_counts_once_it_is_adopted(started: Desk) -> None:
    counted: list[int] = []
    adopt = started.tenant.adopt

    def adopt_and_look(connection: socket.socket) -> None:
        counted.append(started.slot.num_received)
        adopt(connection)

    started.tenant.adopt = adopt_and_look  # type: ignore[method-assign]
    for _ in range(3):
        started.give(started.control)
    await started.until_received(3)
    assert counted == [0, 1, 2]


async def test_a_connection_without_descriptor_counts_as_received(started: Desk) -> None:
    """The kernel drops the descriptor where the process has no room for it."""
    started.connections.send(b"c")
    started.give(started.control)
    await started.until_received(2)
    assert len(started.tenant.connections) == 1


async def test_open_connections_are_published(desk: Desk) -> None:
    desk.start().count_connections(5)
    assert desk.slot.num_open == 5


async def test_a_worker_without_supervisor_is_orphaned(started: Desk) -> None:
    assert not started.orphaned.is_set()
    started.close()
    await started.orphaned.wait()


async def test_half_a_command_orphans_a_worker(started: Desk) -> None:
    """A supervisor may be killed while it writes."""
    started.control.send(b'{"id": 1, "do"')
    started.close()
    await started.orphaned.wait()


async def test_a_worker_beats_by_itself(started: Desk) -> None:
    for _ in range(2):
        started.slot.beat_ns = 0
        while not started.slot.beat_ns:
            await asyncio.sleep(0)


async def test_counting_goes_on_from_earlier_processes(desk: Desk) -> None:
    desk.slot.cpu_us = before_us = 10**12
    desk.slot.num_dropped = 40
    worker = desk.start()
    desk.num_dropped = 2
    for _ in range(2):
        worker.publish()
        assert desk.slot.num_dropped == 42
        assert before_us < desk.slot.cpu_us < before_us + 10**10


async def test_readiness_is_the_tenant_s(desk: Desk) -> None:
    worker = desk.start()
    for is_ready in (True, False):
        desk.tenant.ready = is_ready
        worker.publish()
        assert bool(desk.slot.is_ready) == is_ready
    assert desk.slot.unready_since_ns > 0


@pytest.mark.parametrize("is_mendable", [True, False])
async def test_a_failure_is_reported_with_its_kind(desk: Desk, is_mendable: bool) -> None:
    desk.seat.report_failure(EngineFailed("The engine hangs."), is_mendable=is_mendable)
    assert await desk.read() == {
        "failure": "EngineFailed",
        "reason": "The engine hangs.",
        "is_mendable": is_mendable,
    }


async def test_a_report_without_supervisor_raises_nothing(desk: Desk) -> None:
    desk.close()
    desk.seat.report_failure(EngineFailed("The engine hangs."), is_mendable=True)


TAKES_A_PLACE = """
import os, signal, sys
from pathlib import Path
from service.workers.worker import Place
board = Place(1, 2, Path(sys.argv[1]), *map(int, sys.argv[2:5])).take_up().board
assert board.workers[1].pid == os.getpid()
assert board.workers[1].silent_s() < 60
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    signal.raise_signal(number)
os.write(2, b"a library speaks\\n")
"""


def test_a_process_takes_up_its_place(tmp_path: Path) -> None:
    with ExitStack() as sockets:
        pairs = [socket.socketpair() for _ in range(3)]
        for pair in pairs:
            for end in pair:
                sockets.enter_context(end)
        far = [pair[1].fileno() for pair in pairs]
        command = [sys.executable, "-c", TAKES_A_PLACE, str(tmp_path), *map(str, far)]
        subprocess.run(command, cwd=REPOSITORY, pass_fds=far, check=True)
        assert pairs[2][0].recv(100) == b"a library speaks\n"


DIES_WITH_ITS_PARENT = """
import os, socket, sys
from pathlib import Path
from service.workers.worker import Place
ends = [socket.socketpair() for _ in range(3)]
reader, writer = os.pipe()
child = os.fork()
if not child:
    Place(0, 1, Path(sys.argv[1]), *(end[1].fileno() for end in ends)).take_up()
    os.write(writer, b".")
    ends[0][1].recv(1)  # it would wait for ever, since it holds both ends
os.read(reader, 1)
print(child)
"""


def test_a_worker_dies_with_its_parent(tmp_path: Path) -> None:
    command = [sys.executable, "-c", DIES_WITH_ITS_PARENT, str(tmp_path)]
    printed = subprocess.run(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True, check=True).stdout
    wait_until(lambda: is_gone(int(printed)))
