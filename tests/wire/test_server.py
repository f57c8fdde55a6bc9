"""Server of connections that were accepted elsewhere, with uvicorn for real."""

import asyncio
import signal
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, suppress
from unittest.mock import Mock

import pytest
from starlette.types import Receive, Scope, Send

from service.errors import FlowersError
from service.wire.heads import Fields
from service.wire.server import Server, make_config

pytestmark = pytest.mark.anyio
GET = b"GET %s HTTP/1.1\r\nHost: flowers\r\n\r\n"
LARGE = bytes(64 * 1024 * 1024)  # more than the system takes by itself


class Hooks:
    """A service behind the wire that refuses nothing."""

    is_shutting_down = False

    def refuse(self, error: FlowersError, fields: Fields) -> bytes:
        return b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n"

    def admit(self, method: str, target: bytes, fields: Fields) -> bytes | None:
        return None

    def is_draining(self) -> bool:
        return self.is_shutting_down


class App:
    """It answers with a few bytes, or with many, or not before its client has gone."""

    def __init__(self) -> None:
        self.steps: list[str] = []
        self.asked = asyncio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            for step in ("startup", "shutdown"):
                await receive()
                self.steps.append(step)
                await send({"type": f"lifespan.{step}.complete"})
            return
        self.asked.set()
        if scope["path"] == "/never":
            while (await receive())["type"] != "http.disconnect":
                pass
            return
        body = LARGE if scope["path"] == "/large" else b"an answer"
        headers = [(b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})


class Serving:
    """A running server, and what it has told of its connections."""

    def __init__(self) -> None:
        self.app = App()
        self.hooks = Hooks()
        self.told: list[int] = []
        self.has_started = asyncio.Event()
        self.changed = asyncio.Event()
        self.server = Server(make_config(self.app, self.hooks), self.has_started.set, self._tell)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.clients = ExitStack()

    def _tell(self, num_open: int) -> None:
        self.told.append(num_open)
        self.changed.set()

    async def until_told(self, num_open: int) -> None:
        while self.told[-1:] != [num_open]:
            self.changed.clear()
            await self.changed.wait()

    def connect(self) -> socket.socket:
        """A client whose connection the server has got."""
        client = self.clients.enter_context(socket.create_connection(self.listener.getsockname()))
        connection, _ = self.listener.accept()
        connection.setblocking(False)
        self.server.adopt(connection)
        client.setblocking(False)
        return client


@asynccontextmanager
async def run() -> AsyncIterator[Serving]:
    serving = Serving()
    running = asyncio.create_task(serving.server.serve())
    with serving.listener, serving.clients:
        await serving.has_started.wait()
        yield serving
        serving.server.should_exit = True
        await running


@pytest.fixture
async def serving(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Serving]:
    monkeypatch.setattr("service.wire.server._LAST_WORDS_S", 0.0)
    monkeypatch.setattr("service.wire.server._GOODBYE_S", 0.0)
    async with run() as serving:
        yield serving


async def send(client: socket.socket, path: bytes) -> None:
    await asyncio.get_running_loop().sock_sendall(client, GET % path)


async def ask(client: socket.socket) -> bytes:
    """The whole of a short answer."""
    await send(client, b"/")
    answer = b""
    while not answer.endswith(b"an answer"):
        piece = await asyncio.get_running_loop().sock_recv(client, 65536)
        assert piece, "the connection was closed"
        answer += piece
    return answer


async def read_rest(client: socket.socket) -> int:
    """The number of bytes up to the end of the connection."""
    num_bytes = 0
    with suppress(ConnectionResetError):
        while piece := await asyncio.get_running_loop().sock_recv(client, 2**20):
            num_bytes += len(piece)
    return num_bytes


async def test_a_connection_accepted_elsewhere_is_served(serving: Serving) -> None:
    client = serving.connect()
    for _ in range(2):
        assert (await ask(client)).startswith(b"HTTP/1.1 200 OK")


async def test_the_app_starts_before_the_first_connection(serving: Serving) -> None:
    assert serving.app.steps == ["startup"]


async def test_a_connection_counts_once_from_the_first_moment(serving: Serving) -> None:
    client = serving.connect()
    assert (serving.server.num_connections, serving.told) == (1, [1])
    await ask(client)
    assert (serving.server.num_connections, serving.told) == (1, [1])
    client.close()
    await serving.until_told(0)
    assert (serving.server.num_connections, serving.told) == (0, [1, 0])


async def test_connections_are_counted_to_their_end(serving: Serving) -> None:
    clients = [serving.connect() for _ in range(3)]
    assert serving.told == [1, 2, 3]
    for client in clients:
        await ask(client)
    clients[1].close()
    await serving.until_told(2)
    assert len(serving.server.connections) == serving.server.num_connections == 2


async def test_a_client_that_has_gone_counts_no_more(serving: Serving) -> None:
    serving.connect().close()
    await serving.until_told(0)
    assert serving.server.num_connections == 0


async def test_a_connection_that_cannot_be_taken_is_closed(serving: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(*_: object) -> None:
        raise OSError(107, "Transport endpoint is not connected")

    loop = asyncio.get_running_loop()
    monkeypatch.setattr(loop, "connect_accepted_socket", fail)
    client = serving.connect()
    assert await loop.sock_recv(client, 1) == b""
    assert (serving.server.num_connections, serving.told) == (0, [1, 0])


async def test_the_end_stops_the_server(serving: Serving) -> None:
    await serving.server.end()
    while serving.app.steps != ["startup", "shutdown"]:
        await asyncio.sleep(0)


async def test_the_end_leaves_a_moment_for_answers() -> None:
    async with run() as serving:
        client = serving.connect()
        await ask(client)
        ending = asyncio.create_task(serving.server.end())
        await asyncio.sleep(0)
        serving.hooks.is_shutting_down = True
        answer = await ask(client)
        assert b"connection: close" in answer
        assert not serving.server.should_exit
        await ending
        assert serving.server.should_exit


async def test_the_end_aborts_answers_that_nobody_reads(serving: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their connections would keep the process for as long as their readers want."""
    monkeypatch.setattr("service.wire.server._GOODBYE_S", 3600.0)
    client = serving.connect()
    await send(client, b"/large")
    await serving.app.asked.wait()
    await serving.server.end()
    assert await read_rest(client) < len(LARGE)
    await serving.until_told(0)


async def test_the_end_aborts_requests_without_answer(serving: Serving, caplog: pytest.LogCaptureFixture) -> None:
    client = serving.connect()
    await send(client, b"/never")
    await serving.app.asked.wait()
    await serving.server.end()
    assert await read_rest(client) == 0
    await serving.until_told(0)
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []


@pytest.fixture
def handler() -> Iterator[Mock]:
    """Handler of SIGTERM, set before the server starts."""
    handler = Mock()
    before = signal.signal(signal.SIGTERM, handler)
    yield handler
    signal.signal(signal.SIGTERM, before or signal.SIG_DFL)


async def test_the_caller_keeps_its_signal_handlers(handler: Mock, serving: Serving) -> None:
    assert serving
    assert signal.getsignal(signal.SIGTERM) is handler
