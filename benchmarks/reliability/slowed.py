"""Processes that run for a share of the time, as on slower machines. SIGSTOP and SIGCONT alternate."""

import itertools
import multiprocessing
import os
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing.synchronize import Event

Group = Sequence[int]
"""Process ids of one machine"""


@contextmanager
def slowed(groups: Sequence[Group], *, slot_s: float, num_slots: int) -> Iterator[None]:
    """Run each group in its own one of `num_slots` slots, in turn. No two groups run at a time.

    A group thus has the speed of a machine that is `num_slots` times slower. At the end all run again.
    """
    context = multiprocessing.get_context("spawn")  # a process of its own keeps time beside a busy generator
    has_begun, is_over = context.Event(), context.Event()
    process = context.Process(target=_take_turns, args=(groups, slot_s, num_slots, has_begun, is_over))
    process.start()
    try:
        if not has_begun.wait(60):
            raise SystemExit("The process that slows the others has not begun within 60 s. Look for its error above.")
        yield
    finally:
        is_over.set()
        process.join()


def _take_turns(groups: Sequence[Group], slot_s: float, num_slots: int, has_begun: Event, is_over: Event) -> None:
    for group in groups:
        _send(group, signal.SIGSTOP)
    has_begun.set()
    ends_at = time.monotonic()
    for slot in itertools.count():
        group = groups[slot % num_slots] if slot % num_slots < len(groups) else ()
        ends_at += slot_s
        _send(group, signal.SIGCONT)
        time.sleep(max(0.0, ends_at - time.monotonic()))
        _send(group, signal.SIGSTOP)
        if is_over.is_set():
            break
    for group in groups:
        _send(group, signal.SIGCONT)


def _send(group: Group, number: signal.Signals) -> None:
    for pid in group:
        with suppress(ProcessLookupError):
            os.kill(pid, number)
