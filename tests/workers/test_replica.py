"""Replica as a worker sees it, on a board that the test writes."""

from pathlib import Path

import pytest

from service.workers.board import FROZEN_AFTER_S, Board, Slot
from service.workers.replica import WEDGED_FOR_LONG_S, WorkerReplica

NOW_NS = 10**13


class Time:
    """The machine's monotonic clock, which the test sets."""

    now_ns = NOW_NS

    def __call__(self) -> int:
        return self.now_ns

    def pass_by(self, seconds: float) -> None:
        self.now_ns += int(seconds * 1e9)


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> Time:
    time = Time()
    monkeypatch.setattr("time.monotonic_ns", time)
    return time


@pytest.fixture
def board(tmp_path: Path, time: Time) -> Board:
    """Three workers that can answer, and their supervisor."""
    board = Board(tmp_path, 3)
    for number, slot in enumerate([board.supervisor, *board.workers]):
        slot.pid = 100 + number
        answer(slot)
    return board


def answer(slot: Slot) -> None:
    slot.report_ready(True)
    slot.beat()


@pytest.fixture
def replica(board: Board) -> WorkerReplica:
    return WorkerReplica(board, 1)


def test_a_worker_knows_its_own_slot_and_the_others(board: Board, replica: WorkerReplica) -> None:
    assert replica.own is board.workers[1]
    assert list(replica.others) == [board.workers[0], board.workers[2]]
    assert (replica.num_workers, replica.folder) == (3, board.folder)


def test_frozen_and_unready_workers_are_not_ready(board: Board, replica: WorkerReplica, time: Time) -> None:
    assert replica.num_ready() == 3
    board.workers[0].report_ready(False)
    assert replica.num_ready() == 2
    time.pass_by(FROZEN_AFTER_S)
    answer(board.workers[1])
    assert replica.num_ready() == 1


def test_started_is_what_the_supervisor_says(board: Board, replica: WorkerReplica) -> None:
    board.workers[1].is_started = 1
    assert not replica.is_started()
    board.supervisor.is_started = 1
    assert replica.is_started()


def test_one_worker_that_answers_is_enough(board: Board, replica: WorkerReplica) -> None:
    for slot in board.workers[1:]:
        slot.report_ready(False)
    assert replica.find_trouble() == ""
    board.workers[0].report_ready(False)
    assert replica.find_trouble() == "No worker can answer."


def test_an_unready_worker_is_trouble_after_a_while(board: Board, replica: WorkerReplica, time: Time) -> None:
    board.workers[2].report_ready(False)
    time.pass_by(WEDGED_FOR_LONG_S - 1)
    for slot in board.workers:
        slot.beat()
    assert replica.find_trouble() == ""
    time.pass_by(1)
    assert replica.find_trouble() == "A worker has not answered for 10 s."
    answer(board.workers[2])
    assert replica.find_trouble() == ""


def test_a_frozen_worker_is_trouble_after_a_while(board: Board, replica: WorkerReplica, time: Time) -> None:
    time.pass_by(WEDGED_FOR_LONG_S - 1)
    for slot in board.workers[:2]:
        slot.beat()
    assert replica.find_trouble() == ""
    time.pass_by(2)
    assert replica.find_trouble() == "A worker has not answered for 11 s."


@pytest.mark.parametrize("state", ["ended", "starting"])
def test_a_worker_without_model_yet_is_no_trouble(board: Board, replica: WorkerReplica, time: Time, state: str) -> None:
    slot = board.workers[2]
    slot.report_ready(False)
    slot.clear()
    if state == "starting":
        slot.pid = 200
        slot.report_ready(False)
    time.pass_by(WEDGED_FOR_LONG_S)
    for other in board.workers[:2] if state == "ended" else board.workers:
        other.beat()
    assert replica.find_trouble() == ""


def test_dead_processes_count_in_the_sums(board: Board, replica: WorkerReplica) -> None:
    for number, slot in enumerate([board.supervisor, *board.workers], 1):
        slot.num_dropped = number
        slot.cpu_us = number * 1_000_000
    board.workers[0].clear()
    assert replica.num_dropped_lines() == 1 + 2 + 3 + 4
    assert replica.cpu_s() == 1 + 2 + 3 + 4


def test_only_living_processes_are_listed(board: Board, replica: WorkerReplica) -> None:
    board.workers[0].clear()
    assert replica.process_ids() == [100, 102, 103]


def test_a_turn_is_the_replica_s(board: Board, replica: WorkerReplica) -> None:
    with replica.turn():
        assert (board.folder / "turn").exists()
