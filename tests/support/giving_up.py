"""The moment at which a pool of threads is given up."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest


def given_up(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Set once a pool has begun to shut down, and has dropped what it drops. Only then it waits for its threads."""
    event = threading.Event()
    shutdown = ThreadPoolExecutor.shutdown

    def shut_down(pool: ThreadPoolExecutor, wait: bool = True, *, cancel_futures: bool = False) -> None:
        shutdown(pool, wait=False, cancel_futures=cancel_futures)
        event.set()
        shutdown(pool, wait=wait)

    monkeypatch.setattr(ThreadPoolExecutor, "shutdown", shut_down)
    return event
