"""Who gets the cores: on Linux, where threads have a policy and a priority of their own."""

import os
import sys
import threading
import time
from collections.abc import Callable

import pytest

from service.inference.threads import compute_threads, never_preempt, on_own_core

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a thread has neither policy nor priority")


def in_a_thread(act: Callable[[], None]) -> None:
    """Run `act` in a thread that ends with it: what it does to itself is gone then."""
    failures: list[BaseException] = []

    def guarded() -> None:
        try:
            act()
        except BaseException as failure:
            failures.append(failure)

    thread = threading.Thread(target=guarded)
    thread.start()
    thread.join()
    if failures:
        raise failures[0]


def policy_and_niceness() -> tuple[int, int]:
    return os.sched_getscheduler(0), os.getpriority(os.PRIO_PROCESS, threading.get_native_id())


def test_who_never_preempts_starts_threads_that_do_not_either_and_that_step_back() -> None:
    before = policy_and_niceness()

    def act() -> None:
        never_preempt()
        assert policy_and_niceness() == (os.SCHED_BATCH, before[1])
        with compute_threads(1, "lane", 3) as threads:
            assert threads.submit(policy_and_niceness).result() == (os.SCHED_BATCH, before[1] + 3)

    in_a_thread(act)
    assert policy_and_niceness() == before


def test_a_policy_that_somebody_has_chosen_stays() -> None:
    def act() -> None:
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
        never_preempt()
        assert os.sched_getscheduler(0) == os.SCHED_IDLE

    in_a_thread(act)


def test_where_there_is_no_such_policy_nothing_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "sched_setscheduler", refuse)
    before = policy_and_niceness()
    never_preempt()
    assert policy_and_niceness() == before


ALL_CORES = sorted(os.sched_getaffinity(0)) if sys.platform == "linux" else []


def cores_inside(*, is_alone: bool = False) -> set[int]:
    """Those that the calling thread may run on while it computes."""
    with on_own_core(is_alone=is_alone):
        return os.sched_getaffinity(0)


def test_each_thread_keeps_to_a_core_of_its_own_while_it_computes() -> None:
    barrier = threading.Barrier(len(ALL_CORES))

    def compute() -> set[int]:
        barrier.wait(10)  # else one thread could do it all
        return cores_inside()

    with compute_threads(len(ALL_CORES), "lane", 0, ALL_CORES) as lanes:
        found = [lanes.submit(compute) for _ in ALL_CORES]
        assert sorted(tuple(one.result()) for one in found) == [(core,) for core in ALL_CORES]


def test_a_thread_without_a_core_of_its_own_runs_where_it_did() -> None:
    with compute_threads(1, "decode", 0) as lanes:
        assert lanes.submit(cores_inside).result() == set(ALL_CORES)
    assert cores_inside() == set(ALL_CORES)


@pytest.mark.skipif(len(ALL_CORES) < 2, reason="there is no other core")
def test_who_is_alone_leaves_its_core() -> None:
    with compute_threads(1, "lane", 0, ALL_CORES[:1]) as lanes:
        for is_alone, expected in ((False, {ALL_CORES[0]}), (True, set(ALL_CORES)), (False, {ALL_CORES[0]})):
            assert lanes.submit(cores_inside, is_alone=is_alone).result() == expected


@pytest.mark.skipif(len(ALL_CORES) < 2, reason="there is no other core")
def test_a_core_that_somebody_else_takes_is_left_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    """The time that a thread has not computed is one that the clock jumps over."""
    own, every = {ALL_CORES[0]}, set(ALL_CORES)
    real, jumped_s = time.monotonic, 0.0
    monkeypatch.setattr(time, "monotonic", lambda: real() + jumped_s)

    def computed(lost_s: float) -> set[int]:
        nonlocal jumped_s
        with on_own_core(is_alone=False):
            ends_at = time.thread_time() + 0.05
            while time.thread_time() < ends_at:
                pass
            jumped_s += lost_s
        return os.sched_getaffinity(0)

    with compute_threads(1, "lane", 0, ALL_CORES[:1]) as lanes:
        assert lanes.submit(computed, 0.1).result() == own  # a third of the time, but too short to be judged
        assert lanes.submit(computed, 0.9).result() == every  # a tenth of it
        assert lanes.submit(computed, 0.0).result() == every  # not yet again
        jumped_s += 11
        assert lanes.submit(computed, 0.0).result() == own


def test_a_core_that_is_gone_is_no_error() -> None:
    with compute_threads(1, "lane", 0, [4095]) as lanes:
        assert lanes.submit(cores_inside).result() == set(ALL_CORES)
