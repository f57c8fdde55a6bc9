"""Clocks of connections: each state and each request has its own time."""

import asyncio

import pytest

from service.wire import clocks
from service.wire.clocks import Clock, State


class Time:
    """A clock that a test sets."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize(
    ("state", "is_draining", "timeout_s"),
    [
        (State.HEAD, False, 10.0),
        (State.HEAD, True, 10.0),
        (State.OWED_BODY, False, 2.0),
        (State.OWED_BODY, True, 1.0),
        (State.BETWEEN, False, 75.0),
    ],
)
def test_each_state_has_its_time(state: State, is_draining: bool, timeout_s: float) -> None:
    clock = Clock(75.0, lambda: is_draining, Time())
    clock.enter(state)
    assert not clock.has_run_out(timeout_s - 0.01)
    assert clock.has_run_out(timeout_s)


def test_the_same_state_gains_no_time() -> None:
    time = Time()
    clock = Clock(75.0, lambda: False, time)
    clock.enter(State.HEAD)
    time.now = 9.0
    clock.enter(State.HEAD)
    assert clock.has_run_out(10.0)


def test_a_further_request_has_its_own_time() -> None:
    time = Time()
    clock = Clock(75.0, lambda: False, time)
    clock.enter(State.HEAD)
    time.now = 9.0
    clock.enter(State.HEAD, 1)
    assert not clock.has_run_out(18.0)
    assert clock.has_run_out(19.0)


def test_a_stopped_clock_never_runs_out() -> None:
    clock = Clock(75.0, lambda: False, Time())
    assert not clock.has_run_out(1e9)
    clock.enter(State.HEAD)
    clock.enter(None)
    assert not clock.has_run_out(1e9)


@pytest.mark.anyio
async def test_every_connection_is_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    class Ended(Exception):
        pass

    class Connection:
        def __init__(self, is_last: bool) -> None:
            self.is_last = is_last
            self.checked: list[float] = []

        def check(self, now: float) -> None:
            self.checked.append(now)
            if self.is_last and len(self.checked) == 2:
                raise Ended

    monkeypatch.setattr(clocks, "TICK_S", 0.0)
    connections = [Connection(is_last=False), Connection(is_last=True)]
    with pytest.raises(Ended):
        await clocks.watch_clocks(connections)
    assert [len(connection.checked) for connection in connections] == [2, 2]


@pytest.mark.anyio
async def test_clocks_are_checked_twice_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    async def note(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 2:
            raise asyncio.CancelledError

    pauses: list[float] = []
    monkeypatch.setattr(asyncio, "sleep", note)
    with pytest.raises(asyncio.CancelledError):
        await clocks.watch_clocks([])
    assert pauses == [0.5, 0.5]
