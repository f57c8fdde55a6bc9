"""The threads that compute, decode or load: they step back for the event loop, which a flood would starve."""

import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor


def compute_threads(num_threads: int, name: str) -> ThreadPoolExecutor:
    """Threads, started when they are needed, that get a core when the event loop wants none.

    There are more of them than cores, and at the event loop's own priority they starve it at five times the load:
    refusals come late, and what was computed is fetched late (`benchmarks/reliability`, overload).
    """
    return ThreadPoolExecutor(num_threads, name, step_back, (10,))


def step_back(niceness: int) -> None:
    """Let others go before the calling thread from now on; `niceness` is on top of what it has."""
    if sys.platform == "linux":  # elsewhere threads have no priority of their own
        thread = threading.get_native_id()
        os.setpriority(os.PRIO_PROCESS, thread, os.getpriority(os.PRIO_PROCESS, thread) + niceness)
