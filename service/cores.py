"""How many cores there are for us."""

import os


def count_cores() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def count_decoders() -> int:
    """Threads that decode images unless a setting says otherwise.

    One more than cores: one slow picture for each core still leaves a thread for the others. With two per core an
    overload took the event loop's time, and connections were lost.
    """
    return count_cores() + 1
