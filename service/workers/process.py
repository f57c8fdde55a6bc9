"""One worker as the supervisor sees it: its process, its channels, its slot."""

import asyncio
import gc
import itertools
import json
import os
import pickle
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NoReturn, Protocol

from service.errors import WorkerEnded
from service.logs import LogWriter
from service.workers.board import FROZEN_AFTER_S, Board
from service.workers.worker import MAX_MESSAGE_BYTES, Place

_READ_BYTES = 256 * 1024
_MOST_UNDER_WAY = 128  # connections. A channel holds some 270


@dataclass(frozen=True)
class Program:
    """Program of a worker. It gets `argument` and its `Place`, and does not return.

    Attributes:
        run: For a forked worker.
        module: For a spawned worker. It reads both from its standard input, pickled as one tuple, and calls `run`.
        argument: Anything that can be pickled.
    """

    run: Callable[[Any, Place], NoReturn]
    module: str
    argument: Any


class _Process(Protocol):
    """The part of `subprocess.Popen` that is used here."""

    @property
    def pid(self) -> int: ...
    def poll(self) -> int | None: ...
    def kill(self) -> None: ...


class _Forked:
    """Child of `os.fork`."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._exit_code: int | None = None

    def poll(self) -> int | None:
        """Return the exit code, or None while it runs."""
        if self._exit_code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self._exit_code = os.waitstatus_to_exitcode(status) if pid else None
        return self._exit_code

    def kill(self) -> None:
        """End it at once."""
        if self._exit_code is None:  # else the number may be another process's by now
            os.kill(self.pid, signal.SIGKILL)


class WorkerProcess:
    """A worker.

    Args:
        number: Its number, from 0.

    Attributes:
        has_said_hello: Whether its event loop has begun.
        ended: Whether its process has ended.
        reason: Why it ends, as it has said.
        num_lost: Images that had no answer when it ended, at least 1 for bodies that were arriving.
    """

    def __init__(self, number: int, board: Board) -> None:
        self.number = number
        self.slot = board.workers[number]
        self.has_said_hello = asyncio.Event()
        self.ended = asyncio.Event()
        self.reason = ""
        self.num_lost = 0
        self._board = board
        self._connections, far_connections = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._control, far_control = socket.socketpair()
        self._log, far_log = socket.socketpair()
        self._far = (far_connections, far_control, far_log)
        self._num_sent = 0
        self._line = b""
        self._ids = itertools.count()
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._process: _Process | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._listening: asyncio.Task[None] | None = None
        self._prepare_slot()

    @property
    def exit_code(self) -> int | None:
        """Exit code of the process, or minus the signal that ended it. None means that it runs."""
        return self._process.poll() if self._process is not None else None

    @property
    def num_open(self) -> int:
        """Number of connections that it has, those included that are on the way to it."""
        return self._num_under_way + self.slot.num_open

    @property
    def has_room(self) -> bool:
        """Whether its channel takes one more connection. The others wait in the kernel's backlog."""
        return self._num_under_way < _MOST_UNDER_WAY

    @property
    def _num_under_way(self) -> int:
        return max(0, self._num_sent - self.slot.num_received)

    @property
    def is_running(self) -> bool:
        """Whether its event loop runs, as far as one can see."""
        return self.has_said_hello.is_set() and not self.ended.is_set() and self.slot.silent_s() < FROZEN_AFTER_S

    def spawn(self, program: Program) -> None:
        """Start the process anew. It imports what it needs, so it says hello a second later. Raises `OSError`."""
        command = [sys.executable, "-P", "-m", program.module]  # -P: nothing from the current folder
        descriptors = tuple(channel.fileno() for channel in self._far)
        message = pickle.dumps((program.argument, self._place()))
        process = subprocess.Popen(  # noqa: S603 - of our own words
            command,
            stdin=subprocess.PIPE,
            pass_fds=descriptors,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
            process_group=0,  # signals to the group are the supervisor's to answer
        )
        self._process = process
        self._close_far()
        assert process.stdin is not None
        with suppress(BrokenPipeError), process.stdin as stdin:  # a pipe takes this at once
            stdin.write(message)

    def _fork(self, program: Program, workers: Sequence["WorkerProcess"], listener: socket.socket) -> None:
        pid = os.fork()
        if not pid:
            try:
                listener.close()  # else it would listen for as long as a worker lives
                for worker in workers:
                    worker.close_channels(but_far=worker is self)
                program.run(program.argument, self._place())
            finally:
                os._exit(1)
        self._process = _Forked(pid)

    def begin(self, log_writer: LogWriter, on_failure: Callable[[str, str], None]) -> None:
        """Listen to the process, on the running event loop.

        `on_failure` is called with kind and reason when it ends for a reason that no new process could mend.
        """
        self._log_writer, self._on_failure = log_writer, on_failure
        self._loop = asyncio.get_running_loop()
        self._connections.setblocking(False)
        self._log.setblocking(False)
        self._loop.add_reader(self._log, self._read_log)
        self._listening = self._loop.create_task(self._listen())

    def give(self, connection: socket.socket) -> bool:
        """Hand a connection over. Return False if the channel is full or dead."""
        try:
            socket.send_fds(self._connections, [b"c"], [connection.fileno()])
        except OSError:
            return False
        self._num_sent += 1
        return True

    async def ask(self, verb: str, **fields: Any) -> dict[str, Any]:
        """Send a command, and return the answer. Raises `WorkerEnded`."""
        if self.ended.is_set() or self._writer is None:
            raise self._error()
        number = next(self._ids)
        answer: asyncio.Future[dict[str, Any]] = self._loop.create_future()
        self._answers[number] = answer
        self._writer.write(f"{json.dumps({'id': number, 'do': verb, **fields})}\n".encode())
        try:
            return await answer
        finally:
            self._answers.pop(number, None)

    def kill(self) -> None:
        """End the process at once."""
        if self._process is not None and not self.ended.is_set():
            self._process.kill()

    async def end(self) -> None:
        """Clear up after a process that has ended. Its last words may still be in the channels."""
        if self._listening is not None:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._listening, 0.5)
            self._read_log()
            self._loop.remove_reader(self._log)
        if self._writer is not None:
            self._writer.close()
        self.close_channels()
        self.num_lost = self.slot.num_images or int(self.slot.num_bytes > 0)
        self.slot.clear()
        self.ended.set()
        for answer in self._answers.values():
            if not answer.done():
                answer.set_exception(self._error())

    def close_channels(self, *, but_far: bool = False) -> None:
        """Close this process's ends of the channels, and the worker's unless `but_far`."""
        for channel in (self._connections, self._control, self._log):
            channel.close()
        if not but_far:
            self._close_far()

    def _close_far(self) -> None:
        for channel in self._far:
            channel.close()

    def _place(self) -> Place:
        connections, control, log = (channel.fileno() for channel in self._far)
        return Place(self.number, len(self._board.workers), self._board.folder, connections, control, log)

    def _prepare_slot(self) -> None:
        self.slot.clear()
        self.slot.beat()
        for file in self._board.folder.glob(f"gauge_live*_{self.number}.db"):
            file.unlink()  # what its predecessor had in flight

    def _error(self) -> WorkerEnded:
        return WorkerEnded(f"Worker {self.number} has ended. A new one takes its place.")

    async def _listen(self) -> None:
        reader, self._writer = await asyncio.open_unix_connection(sock=self._control, limit=MAX_MESSAGE_BYTES)
        with suppress(ConnectionError):
            while (line := await reader.readline()).endswith(b"\n"):  # a worker that is killed leaves half of one
                self._take_message(json.loads(line))

    def _take_message(self, message: dict[str, Any]) -> None:
        if "hello" in message:
            self.has_said_hello.set()
        elif "failure" in message:
            self.reason = message["reason"]
            if not message["is_mendable"]:
                self._on_failure(message["failure"], message["reason"])
        elif (answer := self._answers.get(message["id"])) is not None and not answer.done():
            answer.set_result(message)

    def _read_log(self) -> None:
        with suppress(OSError):
            data = self._log.recv(_READ_BYTES)
            if not data:
                self._loop.remove_reader(self._log)
                data = b"\n" if self._line else b""  # the last words have no end
            *lines, self._line = (self._line + data).split(b"\n")
            self._log_writer.write_lines(lines)


def fork_workers(program: Program, board: Board, listener: socket.socket) -> list[WorkerProcess]:
    """Fork all workers of a replica. They share the memory of what this process has imported, and not its listener.

    No thread may run here yet, and no runtime. A fork takes along the locks that they hold.
    """
    workers = [WorkerProcess(number, board) for number in range(len(board.workers))]
    gc.freeze()  # a collection would write to the pages of all objects, and each process would get its own
    for worker in workers:
        worker._fork(program, workers, listener)
    for worker in workers:
        worker._close_far()
    return workers


def describe_exit(exit_code: int | None) -> str:
    """Return how a process ended, for the log."""
    if exit_code is not None and exit_code < 0:
        with suppress(ValueError):
            return signal.Signals(-exit_code).name
    return f"exit code {exit_code}"
