"""Thread priorities. Engine, decoding and loading threads yield to the event loop."""

import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

# Niceness. At the event loop's priority a lane starves it at five times the load. Refusals and answers come late then
# (`benchmarks/reliability`, overload). An image of 50 million pixels takes a decoder a second.
LANES, DECODERS = 10, 17


def compute_threads(num_threads: int, name: str, niceness: int) -> ThreadPoolExecutor:
    """Make threads that yield to the event loop. They start when they are first needed."""
    return ThreadPoolExecutor(num_threads, name, step_back, (niceness,))


def step_back(niceness: int) -> None:
    """Lower the priority of the calling thread from now on, by `niceness`."""
    if sys.platform == "linux":  # elsewhere threads have no priority of their own
        thread = threading.get_native_id()
        os.setpriority(os.PRIO_PROCESS, thread, os.getpriority(os.PRIO_PROCESS, thread) + niceness)
