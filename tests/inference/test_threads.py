"""Who gets the cores: on Linux, where threads have a priority of their own."""

import os
import sys
import threading

import pytest

from service.inference.threads import compute_threads

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a thread has no priority of its own")


def niceness() -> int:
    return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())


def test_computing_threads_step_back_and_their_maker_stays() -> None:
    before = niceness()
    with compute_threads(1, "lane", 3) as threads:
        assert threads.submit(niceness).result() == min(before + 3, 19)
    assert niceness() == before
