"""Accepting of connections from a real listening socket."""

import asyncio
import errno
import os
import socket
from collections.abc import AsyncIterator
from contextlib import ExitStack

import pytest
from structlog.testing import capture_logs

from service.wire.acceptor import Acceptor

pytestmark = pytest.mark.anyio
NO_DESCRIPTOR = OSError(errno.EMFILE, os.strerror(errno.EMFILE))


class Listener(socket.socket):
    """A listening socket, which fails with the errors of the test first."""

    def __init__(self) -> None:
        super().__init__()
        self.bind(("127.0.0.1", 0))
        self.listen(256)
        self.errors: list[OSError] = []

    def accept(self) -> tuple[socket.socket, object]:
        if self.errors:
            raise self.errors.pop(0)
        return super().accept()


class Door:
    """An acceptor with what it has given, its clients, and room for `room` connections."""

    def __init__(self) -> None:
        self.listener = Listener()
        self.room = 1000
        self.given: list[socket.socket] = []
        self.num_asked = 0
        self.changed = asyncio.Event()
        self.acceptor = Acceptor(self.listener, self.take, self.has_room)
        self.all_sockets = ExitStack()

    def connect(self, num_clients: int = 1) -> None:
        for _ in range(num_clients):
            self.all_sockets.enter_context(socket.create_connection(self.listener.getsockname()))

    def take(self, connection: socket.socket) -> None:
        self.given.append(self.all_sockets.enter_context(connection))
        self.changed.set()

    def has_room(self) -> bool:
        self.num_asked += 1
        self.changed.set()
        return len(self.given) < self.room

    async def until_given(self, num_connections: int) -> None:
        while len(self.given) < num_connections:
            self.changed.clear()
            await self.changed.wait()

    async def until_asked_again(self) -> None:
        self.changed.clear()
        await self.changed.wait()


@pytest.fixture
async def door() -> AsyncIterator[Door]:
    door = Door()
    with door.all_sockets:
        yield door
        if door.listener.fileno() >= 0:
            door.acceptor.close()


async def turn_around() -> None:
    """Let the event loop see what is there."""
    for _ in range(20):
        await asyncio.sleep(0)


async def test_each_connection_is_given_once_without_blocking(door: Door) -> None:
    door.connect(3)
    door.acceptor.start()
    await door.until_given(3)
    await turn_around()
    assert [connection.getblocking() for connection in door.given] == [False] * 3
    assert len({connection.getpeername() for connection in door.given}) == 3


async def test_connections_wait_while_there_is_no_room(door: Door) -> None:
    door.room = 2
    door.connect(4)
    door.acceptor.start()
    await door.until_given(2)
    for _ in range(3):
        await door.until_asked_again()
    assert len(door.given) == 2
    door.room = 4
    await door.until_given(4)


async def test_waiting_for_room_costs_no_turns(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.wire.acceptor._LOOK_AGAIN_S", 3600.0)
    door.room = 0
    door.connect()
    door.acceptor.start()
    await door.until_asked_again()
    await turn_around()
    assert door.num_asked == 1


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM])
async def test_a_lack_of_descriptors_is_logged_once(door: Door, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    monkeypatch.setattr("service.wire.acceptor._AFTER_ERROR_S", 0.001)
    door.listener.errors = [OSError(number, os.strerror(number))] * 3
    door.connect()
    with capture_logs() as events:
        door.acceptor.start()
        await door.until_given(1)
    assert [(event["event"], event["log_level"]) for event in events] == [("accept failed", "warning")]
    assert os.strerror(number) in events[0]["reason"]


async def test_the_next_lack_is_logged_again(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.wire.acceptor._AFTER_ERROR_S", 0.001)
    with capture_logs() as events:
        door.acceptor.start()
        for num_connections in (1, 2):
            door.listener.errors = [NO_DESCRIPTOR]
            door.connect()
            await door.until_given(num_connections)
    assert len(events) == 2


async def test_a_lack_of_descriptors_costs_no_turns(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.wire.acceptor._AFTER_ERROR_S", 3600.0)
    door.listener.errors = [NO_DESCRIPTOR] * 9
    door.connect()
    door.acceptor.start()
    await door.until_asked_again()
    await turn_around()
    assert (door.num_asked, len(door.listener.errors)) == (1, 8)


async def test_an_aborted_connection_is_skipped(door: Door) -> None:
    door.listener.errors = [ConnectionAbortedError(), InterruptedError()]
    door.connect()
    with capture_logs() as events:
        door.acceptor.start()
        await door.until_given(1)
    assert events == []


async def test_a_burst_leaves_turns_to_others(door: Door) -> None:
    door.connect(150)
    door.acceptor.start()
    seen = []
    while len(door.given) < 150:
        await asyncio.sleep(0)
        seen.append(len(door.given))
    assert 0 < min(filter(None, seen)) < 100


async def test_close_refuses_further_connections(door: Door) -> None:
    address = door.listener.getsockname()
    door.acceptor.start()
    door.connect()
    await door.until_given(1)
    door.acceptor.close()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(address)


async def test_close_ends_a_pause(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.wire.acceptor._LOOK_AGAIN_S", 0.0)
    failures: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: failures.append(context))
    door.room = 0
    door.connect()
    door.acceptor.start()
    await door.until_asked_again()
    num_asked = door.num_asked
    door.acceptor.close()
    await turn_around()
    assert (door.num_asked, failures) == (num_asked, [])
