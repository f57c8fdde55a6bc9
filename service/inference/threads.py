"""The threads that compute, decode or load: they step back for the event loop, which a flood would starve."""

import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

LANES = 10
"""Niceness of the threads that compute: at the event loop's own priority they, more than cores, starve it at five times
the load; refusals come late, and what was computed is fetched late (`benchmarks/reliability`, overload)."""

DECODERS = 17
"""Of those that decode ahead: a picture of 50 million pixels takes a core for a second, and small ones go before it."""


def compute_threads(num_threads: int, name: str, niceness: int) -> ThreadPoolExecutor:
    """Threads, started when they are needed, that get a core when the event loop wants none."""
    return ThreadPoolExecutor(num_threads, name, step_back, (niceness,))


def step_back(niceness: int) -> None:
    """Let others go before the calling thread from now on; `niceness` is on top of what it has."""
    if sys.platform == "linux":  # elsewhere threads have no priority of their own
        thread = threading.get_native_id()
        os.setpriority(os.PRIO_PROCESS, thread, os.getpriority(os.PRIO_PROCESS, thread) + niceness)
