"""Worker's side of a replica: it takes connections and commands from the supervisor, and writes its slot."""

import asyncio
import ctypes
import json
import os
import signal
import socket
import time
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import structlog

from service.errors import FlowersError
from service.store.versions import StoredVersion
from service.store.watch import Refusal, Taken
from service.workers.board import Board, Slot

BEAT_S = 0.1
MAX_MESSAGE_BYTES = 16 * 1024 * 1024
_MOST_A_TURN = 64  # connections
_PARENT_DEATH_SIGNAL = 1  # prctl(2), PR_SET_PDEATHSIG

log: structlog.typing.FilteringBoundLogger = structlog.get_logger()


@dataclass(frozen=True)
class Place:
    """Place of a worker in its replica. It can be sent to a process that is about to start.

    Attributes:
        number: The worker's, from 0.
        num_workers: Number of workers of the replica.
        folder: Folder of the board.
        connections: Descriptor of the socket that brings connections, one a message.
        control: Descriptor of the socket for commands and answers, as lines of JSON.
        log: Descriptor of the socket for log lines.
    """

    number: int
    num_workers: int
    folder: Path
    connections: int
    control: int
    log: int

    def take_up(self) -> "Seat":
        """Make the calling process this worker. It ends with its parent, and leaves signals to the supervisor."""
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        ctypes.CDLL(None).prctl(_PARENT_DEATH_SIGNAL, signal.SIGKILL)
        os.dup2(self.log, 2)  # for what libraries in C write
        board = Board(self.folder, self.num_workers)
        board.workers[self.number].pid = os.getpid()
        board.workers[self.number].beat()
        return Seat(self, board, socket.socket(fileno=self.connections), socket.socket(fileno=self.control))


@dataclass(frozen=True)
class Seat:
    """Place that a process has taken up."""

    place: Place
    board: Board
    connections: socket.socket
    control: socket.socket

    @property
    def slot(self) -> Slot:
        """The worker's numbers."""
        return self.board.workers[self.place.number]

    def say(self, message: dict[str, Any]) -> None:
        """Send a short message to the supervisor."""
        with suppress(OSError):  # it is gone, and this process ends
            self.control.sendall(f"{json.dumps(message)}\n".encode())

    def report_failure(self, error: FlowersError, *, is_mendable: bool) -> None:
        """Say why this process ends. `is_mendable` means that a new process may do better."""
        self.say({"failure": type(error).__name__, "reason": str(error), "is_mendable": is_mendable})


class Tenant(Protocol):
    """The service in a worker."""

    def is_ready(self) -> bool:
        """Return whether the model can answer. A shutdown does not matter."""

    def adopt(self, connection: socket.socket) -> None:
        """Serve a connection."""

    async def open(self, stored: StoredVersion) -> Taken | Refusal:
        """Load a version beside the live one."""

    async def switch(self) -> None:
        """Serve the version that was opened."""

    def forget(self) -> None:
        """Close the version that was opened."""

    def note_store(self, refused: dict[int, str], num_taken: int, num_refused: int, waiting: str) -> None:
        """Take over what the supervisor knows about the store."""

    async def drain(self, delay_s: float) -> int:
        """Refuse new requests after the delay, and answer the accepted ones. Return how many had no answer."""

    async def end(self) -> None:
        """End the process soon."""


class Worker:
    """Messenger between the supervisor and a tenant.

    Args:
        num_dropped_lines: Gives the number of log lines that this process has dropped.
        on_orphaned: Called when the supervisor is gone. It ends the process.
    """

    def __init__(
        self,
        seat: Seat,
        tenant: Tenant,
        *,
        num_dropped_lines: Callable[[], int],
        on_orphaned: Callable[[], None],
    ) -> None:
        self._seat = seat
        self._slot = slot = seat.slot
        self._tenant = tenant
        self._num_dropped_lines = num_dropped_lines
        self._on_orphaned = on_orphaned
        self._counted_before = (slot.cpu_us, slot.num_dropped)  # by dead processes of this slot
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        """Begin to work, on the running event loop."""
        self._seat.connections.setblocking(False)
        asyncio.get_running_loop().add_reader(self._seat.connections, self._take_connections)
        self._keep(self._beat_again_and_again())
        self._keep(self._obey())

    def count_connections(self, num_open: int) -> None:
        """Publish the number of open connections."""
        self._slot.num_open = num_open

    def publish(self) -> None:
        """Write what may have changed to the slot."""
        cpu_us, num_dropped = self._counted_before
        self._slot.cpu_us = cpu_us + int(time.process_time() * 1e6)
        self._slot.num_dropped = num_dropped + self._num_dropped_lines()
        self._slot.report_ready(self._tenant.is_ready())
        self._slot.beat()

    def _take_connections(self) -> None:
        for _ in range(_MOST_A_TURN):
            try:
                message, descriptors, _, _ = socket.recv_fds(self._seat.connections, 1, 1)
            except OSError:  # none waits
                return
            if not message:  # the supervisor is gone
                asyncio.get_running_loop().remove_reader(self._seat.connections)
                return
            for descriptor in descriptors:  # none if there was no room for it
                connection = socket.socket(fileno=descriptor)
                connection.setblocking(False)
                self._tenant.adopt(connection)
            self._slot.num_received += 1  # only now, or it would count as neither sent nor open

    async def _beat_again_and_again(self) -> None:
        while True:
            self.publish()
            await asyncio.sleep(BEAT_S)

    async def _obey(self) -> None:
        reader, writer = await asyncio.open_unix_connection(sock=self._seat.control, limit=MAX_MESSAGE_BYTES)
        self._seat.say({"hello": os.getpid()})
        with suppress(ConnectionError):
            while (line := await reader.readline()).endswith(b"\n"):  # a supervisor that is killed leaves half of one
                self._keep(self._answer(json.loads(line)))
        writer.close()
        self._on_orphaned()

    async def _answer(self, command: dict[str, Any]) -> None:
        try:
            answer = await self._do(command["do"], command)
        except Exception as error:
            log.exception("command failed", command=command["do"])
            answer = {"error": repr(error)}
        self.publish()
        self._seat.say({"id": command["id"], **answer})

    async def _do(self, verb: str, command: dict[str, Any]) -> dict[str, Any]:
        tenant = self._tenant
        match verb:
            case "open":
                stored = StoredVersion(command["model"], command["version"], Path(command["folder"]), command["pinned"])
                outcome = await tenant.open(stored)
                return {"refusal": outcome.to_dict()} if isinstance(outcome, Refusal) else {"taken": vars(outcome)}
            case "switch":
                await tenant.switch()
            case "forget":
                tenant.forget()
            case "note":
                refused = {int(version): reason for version, reason in command["refused"].items()}
                tenant.note_store(refused, command["num_taken"], command["num_refused"], command["waiting"])
            case "drain":
                return {"num_unanswered": await tenant.drain(command["delay_s"])}
            case "end":
                self._keep(tenant.end())
        return {}

    def _keep(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
