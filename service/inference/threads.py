"""Who gets the cores: what computes, decodes or loads steps back for the event loop, which does not interrupt it."""

import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

LANES = 10
"""Niceness of the threads that compute: at the event loop's own priority they, more than cores, starve it at five times
the load; refusals come late, and what was computed is fetched late (`benchmarks/reliability`, overload)."""

DECODERS = 17
"""Of those that decode ahead: a picture of 50 million pixels takes a core for a second, and small ones go before it."""


def compute_threads(num_threads: int, name: str, niceness: int) -> ThreadPoolExecutor:
    """Threads, started when they are needed, that step back for the event loop."""
    return ThreadPoolExecutor(num_threads, name, step_back, (niceness,))


def step_back(niceness: int) -> None:
    """Let others go before the calling thread from now on; `niceness` is on top of what it has."""
    if sys.platform == "linux":  # elsewhere threads have no priority of their own
        thread = threading.get_native_id()
        os.setpriority(os.PRIO_PROCESS, thread, os.getpriority(os.PRIO_PROCESS, thread) + niceness)


def never_preempt() -> None:
    """The calling thread, and what it starts from now on, no longer takes a core from another in the moment it wakes.

    Else the event loop, for each piece of each request, interrupts a thread that computes, and both find their caches
    cold. Where no core is idle it now waits for the scheduler's next turn (4 ms on many systems), and finds several
    requests at once: more are answered in a flood (`benchmarks/reliability`, overload).

    Source: sched(7), SCHED_BATCH.
    """
    if sys.platform == "linux" and os.sched_getscheduler(0) == os.SCHED_OTHER:  # not what somebody has chosen
        with suppress(OSError):  # a sandbox may not have it
            os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
