"""One worker as the supervisor sees it: its process, its channels, its slot."""

import asyncio
import itertools
import json
import multiprocessing
import multiprocessing.forkserver
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import structlog

from service.errors import WorkerEnded
from service.logs import LogWriter
from service.workers.board import FROZEN_AFTER_S, Board
from service.workers.worker import MAX_MESSAGE_BYTES, Place

_READ_BYTES = 256 * 1024

log: structlog.typing.FilteringBoundLogger = structlog.get_logger()


class Origin:
    """Maker of worker processes: a process without threads, which has imported the service and forks for each.

    Args:
        run: The worker's program. It gets `arguments` and its `Place`, and can be imported by its name.
        modules: Modules to import before the first fork. They must start no thread.
    """

    def __init__(self, run: Callable[..., None], arguments: tuple[Any, ...], modules: list[str]) -> None:
        self._run = run
        self._arguments = arguments
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(modules)
        with _ignored_signals():  # it passes them on: those of the process group are the supervisor's to answer
            multiprocessing.forkserver.ensure_running()

    async def start(self, place: Place) -> multiprocessing.process.BaseProcess:
        """Start a worker. It takes a tenth of a second, or more the first time."""
        process = self._context.Process(
            target=self._run, args=(*self._arguments, place), name=f"worker {place.number}", daemon=True
        )
        await asyncio.to_thread(process.start)
        return process


class WorkerProcess:
    """A worker.

    Args:
        number: Its number, from 0.
        on_ended: Called once when the process has ended.
        on_failure: Called with kind and reason when it ends for a reason that no new process could mend.

    Attributes:
        has_said_hello: Whether its event loop has begun.
        reason: Why it ends, as it has said.
    """

    def __init__(
        self,
        number: int,
        board: Board,
        log_writer: LogWriter,
        on_ended: Callable[["WorkerProcess"], None],
        on_failure: Callable[[str, str], None],
    ) -> None:
        self.number = number
        self.slot = board.workers[number]
        self.has_said_hello = asyncio.Event()
        self.ended = asyncio.Event()
        self.reason = ""
        self._board = board
        self._log_writer = log_writer
        self._on_ended, self._on_failure = on_ended, on_failure
        self._loop = asyncio.get_running_loop()
        self._connections, self._far_connections = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._control, self._far_control = socket.socketpair()
        self._log, self._far_log = socket.socketpair()
        self._connections.setblocking(False)
        self._log.setblocking(False)
        self._num_sent = 0
        self._line = b""
        self._ids = itertools.count()
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._process: multiprocessing.process.BaseProcess | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._listening: asyncio.Task[None] | None = None

    @property
    def exit_code(self) -> int | None:
        """Exit code of the process, or minus the signal that ended it. None means that it runs."""
        return self._process.exitcode if self._process is not None else None

    @property
    def num_open(self) -> int:
        """Number of connections that it has, those included that are on the way to it."""
        return max(0, self._num_sent - self.slot.num_received) + self.slot.num_open

    @property
    def is_running(self) -> bool:
        """Whether its event loop runs, as far as one can see."""
        return self.has_said_hello.is_set() and not self.ended.is_set() and self.slot.silent_s() < FROZEN_AFTER_S

    async def start(self, origin: Origin) -> None:
        """Start the process. It may say hello a second later."""
        self.slot.clear()
        for file in self._board.folder.glob(f"gauge_live*_{self.number}.db"):
            file.unlink()  # what its predecessor had in flight
        self.slot.beat()
        place = Place(
            self.number,
            len(self._board.workers),
            self._board.folder,
            self._far_connections,
            self._far_control,
            self._far_log,
        )
        self._process = await origin.start(place)
        for far in (self._far_connections, self._far_control, self._far_log):
            far.close()
        self._loop.add_reader(self._log, self._read_log)
        self._loop.add_reader(self._process.sentinel, self._end)
        reader, self._writer = await asyncio.open_unix_connection(sock=self._control, limit=MAX_MESSAGE_BYTES)
        self._listening = self._loop.create_task(self._listen(reader))

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
            raise WorkerEnded(f"Worker {self.number} has ended. A new one takes its place.")
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
        if self._process is not None:
            self._process.kill()

    async def _listen(self, reader: asyncio.StreamReader) -> None:
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
        try:
            data = self._log.recv(_READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._loop.remove_reader(self._log)
            self._log.close()
            data = b"\n" if self._line else b""  # the last words have no end
        *lines, self._line = (self._line + data).split(b"\n")
        self._log_writer.write_lines(lines)

    def _end(self) -> None:
        """Clear up. The process has ended, and its last words may still be in the channels."""
        assert self._process is not None
        self._loop.remove_reader(self._process.sentinel)
        self._process.join()
        self._connections.close()
        self._loop.create_task(self._end_soon())

    async def _end_soon(self) -> None:
        if self._listening is not None:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._listening, 0.5)
        if self._writer is not None:
            self._writer.close()
        self.ended.set()
        for answer in self._answers.values():
            if not answer.done():
                answer.set_exception(WorkerEnded(f"Worker {self.number} has ended. A new one takes its place."))
        self._on_ended(self)


@contextmanager
def _ignored_signals() -> Iterator[None]:
    handlers = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def describe_exit(exit_code: int | None) -> str:
    """Return how a process ended, for the log."""
    if exit_code is not None and exit_code < 0:
        with suppress(ValueError):
            return signal.Signals(-exit_code).name
    return f"exit code {exit_code}"
