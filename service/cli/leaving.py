"""Signals that end a service, and its quick end."""

import asyncio
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import NoReturn

_LAST_WORDS_S = 0.5


def on_end_signals(act: Callable[[signal.Signals], None]) -> None:
    """Call `act` on the running event loop for each SIGTERM, SIGINT and SIGHUP. nohup's ignored SIGHUP stays so."""
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
            loop.add_signal_handler(number, act, number)


@contextmanager
def interrupted_by_sigterm() -> Iterator[None]:
    """Let SIGTERM end the block as Ctrl-C does, by a KeyboardInterrupt. So the block can tidy up."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def is_thread_at_work() -> bool:
    """Return whether a thread still computes or loads, now that all have been told to end."""
    ends_at = time.monotonic() + _LAST_WORDS_S
    threads = [
        thread for thread in threading.enumerate() if not thread.daemon and thread is not threading.main_thread()
    ]
    for thread in threads:
        thread.join(max(0.0, ends_at - time.monotonic()))
    return any(thread.is_alive() for thread in threads)


def leave(exit_code: int) -> NoReturn:
    """End the process now. The ordinary way would wait for its threads."""
    with suppress(OSError):
        sys.stdout.flush()
    logging.shutdown()  # waits for the log, but not for long
    os._exit(exit_code)
