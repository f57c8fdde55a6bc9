"""Thread priorities. Engine, decoding and loading threads yield to the event loop."""

import math
import os
import random
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress

# Niceness. At the event loop's priority lanes starve it at five times the load. Refusals and answers come late then
# (`benchmarks/reliability`, overload). An image of 50 million pixels takes a decoder a second.
LANES, DECODERS = 10, 17

_STARVED = 0.5  # of the time: less of its core than the event loop and a client beside it leave to a lane
_JUDGED_AFTER_S = 0.25  # of computing
_FREE_FOR_S = 10.0

_this_thread = threading.local()


def compute_threads(num_threads: int, name: str, niceness: int, cores: Iterable[int] = ()) -> ThreadPoolExecutor:
    """Make threads that yield to the event loop. Each of the first gets one of `cores` by chance for `on_own_core`."""
    own = list(cores)
    random.shuffle(own)  # another replica may begin with the same
    return ThreadPoolExecutor(num_threads, name, _begin, (niceness, iter(own)))


def _begin(niceness: int, cores: Iterator[int]) -> None:
    step_back(niceness)
    _this_thread.core = next((_OwnCore(core) for core in cores), None)


@contextmanager
def on_own_core(*, is_alone: bool) -> Iterator[None]:
    """Keep the calling thread on its own core, if it has one that no other program wants, unless it `is_alone`.

    Under load Linux does not look for an idle core. A thread that wakes may wait some milliseconds beside one.

    Source: Linux 6.18, kernel/sched/fair.c, `select_idle_cpu` and `update_idle_cpu_scan`.
    """
    core: _OwnCore | None = getattr(_this_thread, "core", None)
    if core is None:
        yield
        return
    if is_alone:
        core.leave()
    else:
        core.keep()
    begun_s, cpu_s = time.monotonic(), time.thread_time()
    try:
        yield
    finally:
        core.judge(time.monotonic() - begun_s, time.thread_time() - cpu_s)


class _OwnCore:
    """Core that one thread keeps to. While another program takes most of it, any core will do."""

    def __init__(self, core: int) -> None:
        self._core = core
        self._every: set[int] = set()
        self._is_kept = False
        self._free_until = -math.inf
        self._wall_s = self._cpu_s = 0.0

    def keep(self) -> None:
        if self._is_kept or time.monotonic() < self._free_until:
            return
        self._every = os.sched_getaffinity(0)
        with suppress(OSError):  # a sandbox may not have it
            if self._core in self._every:
                os.sched_setaffinity(0, {self._core})
                self._is_kept = True
                self._wall_s = self._cpu_s = 0.0

    def leave(self) -> None:
        if self._is_kept and os.sched_getaffinity(0) == {self._core}:  # else somebody has moved the thread
            with suppress(OSError):
                os.sched_setaffinity(0, self._every)
        self._is_kept = False

    def judge(self, wall_s: float, cpu_s: float) -> None:
        if not self._is_kept:
            return
        self._wall_s += wall_s
        self._cpu_s += cpu_s
        if self._wall_s < _JUDGED_AFTER_S:
            return
        if self._cpu_s < _STARVED * self._wall_s:
            self.leave()
            self._free_until = time.monotonic() + _FREE_FOR_S
        self._wall_s = self._cpu_s = 0.0


def step_back(niceness: int) -> None:
    """Lower the priority of the calling thread from now on, by `niceness`."""
    if sys.platform == "linux":  # elsewhere threads have no priority of their own
        thread = threading.get_native_id()
        os.setpriority(os.PRIO_PROCESS, thread, os.getpriority(os.PRIO_PROCESS, thread) + niceness)
