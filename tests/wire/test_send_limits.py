"""Over real sockets: what waits for clients that read slowly or not at all, and how long."""

import asyncio
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from support.fakes import Loader
from support.running import running
from support.wires import GET, Wire, full_queue, on_the_wire, predict

from service.wire import clocks, linger, send_limits
from service.wire.head_guard import HeadGuard
from service.wire.send_limits import MAX_UNSENT_BYTES, SendInPieces, UnsentClock

pytestmark = pytest.mark.anyio

LARGE = b"GET /docs/swagger-ui-bundle.js HTTP/1.1\r\nHost: flowers\r\n"


@pytest.fixture
async def wire(store: Path, loader: Loader, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Wire]:
    monkeypatch.setattr(send_limits, "SEND_TIMEOUT_S", 0.3)
    monkeypatch.setattr(clocks, "TICK_S", 0.02)
    monkeypatch.setattr(linger, "LINGER_S", 0.05)
    async with running(store, loader) as service, on_the_wire(service) as wire:
        yield wire


def connect(wire: Wire) -> socket.socket:
    """A client whose kernel takes little."""
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.setblocking(False)
    client.connect_ex(("127.0.0.1", wire.port))
    return client


async def until(condition: Any) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.005)


@pytest.mark.parametrize(
    ("data", "closes_its_side"),
    [
        ((LARGE + b"\r\n") * 6, False),
        ((LARGE + b"\r\n") * 6, True),
        (LARGE + b"Connection: close\r\n\r\n", False),
        (LARGE + b"\r\n" + b"NONSENSE\r\n\r\n", False),
        ((GET.replace(b"livez", b"metrics") + b"\r\n") * 1_000, False),
        (b"NONSENSE\r\n\r\n", False),
    ],
    ids=["large", "half-closed", "close", "garbage behind", "small", "refused"],
)
async def test_a_client_that_reads_nothing_is_dropped(wire: Wire, data: bytes, closes_its_side: bool) -> None:
    client = connect(wire)
    loop = asyncio.get_running_loop()
    connections = wire.server.server_state.connections
    await until(lambda: connections)
    sending = asyncio.create_task(loop.sock_sendall(client, data))
    if closes_its_side:
        await sending
        client.shutdown(socket.SHUT_WR)
    most = 0
    async with asyncio.timeout(10):
        while connections:
            for connection in tuple(connections):
                most = max(most, connection.transport.get_write_buffer_size())
            await asyncio.sleep(0.005)
    assert most <= 3 * MAX_UNSENT_BYTES
    sending.cancel()
    client.close()


async def test_a_slow_client_that_reads_gets_the_whole_answer(wire: Wire) -> None:
    """It takes longer than the timeout, but something all the time."""
    client = connect(wire)
    loop = asyncio.get_running_loop()
    await until(lambda: wire.server.server_state.connections)
    await loop.sock_sendall(client, LARGE + b"Connection: close\r\n\r\n")
    began_at, answer = loop.time(), b""
    while piece := await loop.sock_recv(client, 32 * 1024):
        answer += piece
        await asyncio.sleep(0.002)
    assert loop.time() - began_at > send_limits.SEND_TIMEOUT_S
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"content-length: %d\r\n" % len(body) in head.lower() + b"\r\n"
    client.close()


async def test_a_client_that_takes_a_piece_gains_time(
    store: Path, loader: Loader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clocks, "TICK_S", 3600)  # the test looks at the clock itself
    async with running(store, loader) as service, on_the_wire(service) as wire:
        client, loop = connect(wire), asyncio.get_running_loop()
        await until(lambda: wire.server.server_state.connections)
        [connection] = wire.server.server_state.connections
        assert isinstance(connection, HeadGuard)
        await loop.sock_sendall(client, (LARGE + b"\r\n") * 30)
        await until(lambda: connection.flow.write_paused)
        connection.check(100.0)
        num_before = num_unsent = connection.transport.get_write_buffer_size()
        while num_unsent <= num_before:  # the next piece has not been written yet
            await loop.sock_recv(client, 64 * 1024)
            num_before, num_unsent = num_unsent, connection.transport.get_write_buffer_size()
        connection.check(160.0)
        assert not connection.transport.is_closing()
        connection.check(220.0)
        assert connection.transport.is_closing()
        client.close()


async def test_no_request_begins_before_the_last_answer_is_taken(wire: Wire) -> None:
    client = connect(wire)
    await until(lambda: wire.server.server_state.connections)
    requests = wire.service.service.metrics.requests.labels("GET", "/docs/{asset}", "200")
    await asyncio.get_running_loop().sock_sendall(client, (LARGE + b"\r\n") * 30)
    await until(lambda: not wire.server.server_state.connections)
    (metric,) = requests.collect()
    assert metric.samples[0].value < 10  # the kernel takes some megabytes by itself
    client.close()


async def test_refusals_that_nobody_reads_do_not_pile_up(wire: Wire) -> None:
    client = connect(wire)
    connections = wire.server.server_state.connections
    await until(lambda: connections)
    with full_queue(wire):
        sending = asyncio.create_task(asyncio.get_running_loop().sock_sendall(client, predict() * 50_000))
        most = 0
        while connections:
            most = max([most, *(connection.transport.get_write_buffer_size() for connection in tuple(connections))])
            await asyncio.sleep(0.005)
    sending.cancel()
    client.close()
    assert 0 < most <= 3 * MAX_UNSENT_BYTES


async def test_a_large_body_is_sent_in_pieces_in_order() -> None:
    body = bytes(range(256)) * 1024
    sent: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": body, "more_body": True})
        await send({"type": "http.response.body", "body": body + b"end"})

    async def send(message: Any) -> None:
        sent.append(message)

    await SendInPieces(app)({"type": "http"}, None, send)  # type: ignore[arg-type]
    pieces = [message for message in sent if message["type"] == "http.response.body"]
    assert b"".join(piece["body"] for piece in pieces) == body + body + b"end"
    assert max(len(piece["body"]) for piece in pieces) <= MAX_UNSENT_BYTES
    assert [piece.get("more_body", False) for piece in pieces] == [True] * (len(pieces) - 1) + [False]


class Unread(asyncio.Transport):
    """A transport whose client takes nothing by itself."""

    def __init__(self) -> None:
        self.num_unsent = 1
        self.high: int | None = None
        self.is_aborted = False

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self.high = high

    def get_write_buffer_size(self) -> int:
        return self.num_unsent

    def abort(self) -> None:
        self.is_aborted = True


def test_a_client_has_60_s_for_64_kib() -> None:
    transport = Unread()
    clock = UnsentClock(transport)
    assert transport.high == 64 * 1024
    clock.check(100.0)
    clock.check(159.9)
    assert not transport.is_aborted
    clock.check(160.0)
    assert transport.is_aborted


@pytest.mark.parametrize("is_empty", [True, False])
def test_a_taken_buffer_starts_the_clock_again(is_empty: bool) -> None:
    transport = Unread()
    clock = UnsentClock(transport)
    clock.check(100.0)
    if is_empty:
        transport.num_unsent = 0
        clock.check(150.0)
        transport.num_unsent = 1
    else:
        clock.restart()
    clock.check(151.0)
    clock.check(210.9)
    assert not transport.is_aborted
    clock.check(211.0)
    assert transport.is_aborted
