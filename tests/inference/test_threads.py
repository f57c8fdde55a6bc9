"""Who gets the cores: on Linux, where threads have a priority of their own."""

import os
import sys
import threading
import time

import pytest

from service.inference.threads import compute_threads, on_own_core

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a thread has no priority of its own")


def niceness() -> int:
    return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())


def test_computing_threads_step_back_and_their_maker_stays() -> None:
    before = niceness()
    with compute_threads(1, "lane", 3) as threads:
        assert threads.submit(niceness).result() == min(before + 3, 19)
    assert niceness() == before


ALL_CORES = sorted(os.sched_getaffinity(0)) if sys.platform == "linux" else []


def cores_inside(*, is_alone: bool = False) -> set[int]:
    """Those that the calling thread may run on while it computes."""
    with on_own_core(is_alone=is_alone):
        return os.sched_getaffinity(0)


def test_each_computing_thread_keeps_its_own_core() -> None:
    barrier = threading.Barrier(len(ALL_CORES))

    def compute() -> set[int]:
        barrier.wait(10)  # else one thread could do it all
        return cores_inside()

    with compute_threads(len(ALL_CORES), "lane", 0, ALL_CORES) as lanes:
        found = [lanes.submit(compute) for _ in ALL_CORES]
        assert sorted(tuple(one.result()) for one in found) == [(core,) for core in ALL_CORES]


def test_a_thread_without_an_own_core_stays_free() -> None:
    with compute_threads(1, "decode", 0) as lanes:
        assert lanes.submit(cores_inside).result() == set(ALL_CORES)
    assert cores_inside() == set(ALL_CORES)


@pytest.mark.skipif(len(ALL_CORES) < 2, reason="there is no other core")
def test_a_lone_thread_leaves_its_core() -> None:
    with compute_threads(1, "lane", 0, ALL_CORES[:1]) as lanes:
        for is_alone, expected in ((False, {ALL_CORES[0]}), (True, set(ALL_CORES)), (False, {ALL_CORES[0]})):
            assert lanes.submit(cores_inside, is_alone=is_alone).result() == expected


@pytest.mark.skipif(len(ALL_CORES) < 2, reason="there is no other core")
def test_a_core_taken_by_others_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    own, every = {ALL_CORES[0]}, set(ALL_CORES)
    wall_s = cpu_s = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: wall_s)
    monkeypatch.setattr(time, "thread_time", lambda: cpu_s)

    def compute(its_s: float, others_s: float, *, is_alone: bool = False) -> set[int]:
        nonlocal wall_s, cpu_s
        with on_own_core(is_alone=is_alone):
            wall_s, cpu_s = wall_s + its_s + others_s, cpu_s + its_s
        return os.sched_getaffinity(0)

    with compute_threads(1, "lane", 0, ALL_CORES[:1]) as lanes:
        assert lanes.submit(compute, 0.1, 0.9, is_alone=True).result() == every  # which says nothing of its core
        assert lanes.submit(compute, 0.01, 0.1).result() == own  # too short to be judged
        assert lanes.submit(compute, 0.3, 0.1).result() == own  # both together: three fifths
        assert lanes.submit(compute, 0.1, 0.3).result() == every
        assert lanes.submit(compute, 9.0, 0.0).result() == every  # not yet again
        wall_s += 2
        assert lanes.submit(compute, 0.1, 0.0).result() == own


@pytest.mark.skipif(len(ALL_CORES) < 2, reason="there is no other core")
def test_a_thread_moved_by_others_stays_there() -> None:
    def moved() -> set[int]:
        cores_inside()
        os.sched_setaffinity(0, ALL_CORES[1:2])
        return cores_inside(is_alone=True)

    with compute_threads(1, "lane", 0, ALL_CORES[:1]) as lanes:
        assert lanes.submit(moved).result() == set(ALL_CORES[1:2])
        assert lanes.submit(cores_inside).result() == set(ALL_CORES[1:2])  # its core is none of those any more


def test_a_sandbox_without_pinning_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "sched_setaffinity", refuse)
    with compute_threads(1, "lane", 0, ALL_CORES[:1]) as lanes:
        assert lanes.submit(cores_inside).result() == set(ALL_CORES)
        assert lanes.submit(cores_inside, is_alone=True).result() == set(ALL_CORES)
