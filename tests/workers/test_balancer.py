"""Which worker gets a connection. Real processes are in `test_supervisor.py`."""

import socket
from collections.abc import Iterator
from typing import cast

import pytest
from structlog.testing import capture_logs

from service.workers.balancer import Balancer
from service.workers.process import WorkerProcess


class Slot:
    is_ready = True

    def can_answer(self) -> bool:
        return self.is_ready


class FakeWorker:
    """A worker as the balancer sees it. It counts what it is given."""

    def __init__(self, number: int, num_open: int = 0) -> None:
        self.number, self.num_open = number, num_open
        self.is_running = self.has_room = self.takes = True
        self.slot = Slot()

    def give(self, connection: socket.socket) -> bool:
        assert connection.fileno() >= 0
        self.num_open += self.takes
        return self.takes


@pytest.fixture
def workers() -> list[FakeWorker]:
    return [FakeWorker(number) for number in range(3)]


@pytest.fixture
def connections() -> Iterator[list[socket.socket]]:
    pairs = [socket.socketpair() for _ in range(8)]
    yield [near for near, _ in pairs]
    for pair in pairs:
        for end in pair:
            end.close()


def balance(workers: list[FakeWorker], max_connections: int = 100) -> Balancer:
    return Balancer(lambda: cast(list[WorkerProcess], workers), max_connections)


def test_the_worker_with_the_fewest_gets_it(workers: list[FakeWorker], connections: list[socket.socket]) -> None:
    workers[0].num_open, workers[2].num_open = 4, 1
    balancer = balance(workers)
    for connection in connections[:4]:
        balancer.give(connection)
    assert [worker.num_open for worker in workers] == [4, 2, 3]


def test_equal_workers_take_turns(workers: list[FakeWorker], connections: list[socket.socket]) -> None:
    balancer = balance(workers)
    for connection in connections[:3]:
        balancer.give(connection)
        for worker in workers:  # it has ended by the time of the next
            worker.num_open = min(worker.num_open, 0)
    for connection in connections[3:6]:
        balancer.give(connection)
    assert [worker.num_open for worker in workers] == [1, 1, 1]


@pytest.mark.parametrize("lacks", ["is_running", "has_room"])
def test_a_worker_that_cannot_take_it_gets_none(
    workers: list[FakeWorker], connections: list[socket.socket], lacks: str
) -> None:
    setattr(workers[0], lacks, False)
    workers[1].num_open = workers[2].num_open = 9
    balance(workers).give(connections[0])
    assert [worker.num_open for worker in workers] == [0, 10, 9]


def test_an_unready_worker_gets_one_only_without_ready_ones(
    workers: list[FakeWorker], connections: list[socket.socket]
) -> None:
    workers[0].slot.is_ready = False
    workers[1].num_open = workers[2].num_open = 9
    balancer = balance(workers)
    balancer.give(connections[0])
    assert workers[0].num_open == 0
    workers[1].slot.is_ready = workers[2].slot.is_ready = False
    balancer.give(connections[1])
    assert workers[0].num_open == 1


def test_a_full_channel_costs_no_connection(workers: list[FakeWorker], connections: list[socket.socket]) -> None:
    workers[0].takes = False
    balance(workers).give(connections[0])
    assert [worker.num_open for worker in workers] == [0, 1, 0]
    assert connections[0].fileno() == -1, "the supervisor's copy is closed"


def test_a_connection_that_nobody_takes_is_closed(workers: list[FakeWorker], connections: list[socket.socket]) -> None:
    for worker in workers:
        worker.takes = False
    with capture_logs() as events:
        balance(workers).give(connections[0])
    assert [event["event"] for event in events] == ["connection dropped"]
    assert connections[0].fileno() == -1


def test_connections_of_all_workers_share_one_limit(workers: list[FakeWorker]) -> None:
    balancer = balance(workers, max_connections=10)
    workers[0].num_open, workers[1].num_open = 6, 3
    assert balancer.has_room()
    workers[2].num_open = 1
    assert not balancer.has_room()
    workers[0].num_open, workers[0].is_running = 5, False  # a frozen worker's connections are open, too
    assert balancer.has_room()
    for worker in workers:
        worker.has_room = False
    assert not balancer.has_room()
