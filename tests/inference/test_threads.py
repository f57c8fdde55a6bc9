"""Who gets the cores: on Linux, where threads have a policy and a priority of their own."""

import os
import sys
import threading
from collections.abc import Callable

import pytest

from service.inference.threads import compute_threads, never_preempt

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
