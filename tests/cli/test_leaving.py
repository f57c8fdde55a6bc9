"""Signals that end a service, and its quick end."""

import asyncio
import json
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest
from conftest import REPOSITORY

from service.cli.leaving import interrupted_by_sigterm, on_end_signals

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)

LEAVES = """
import atexit, sys, threading
from service.cli.leaving import leave
from service.logs import configure_logging
import structlog
configure_logging("json")
atexit.register(print, "an ordinary end")
threading.Thread(target=threading.Event().wait).start()
print("a result")
structlog.get_logger().info("last words")
leave(7)
"""

HAS_A_THREAD = """
import sys, threading
from service.cli.leaving import is_thread_at_work
may_end = threading.Event()
thread = threading.Thread(target=may_end.wait, daemon=sys.argv[1] == "True")
print(is_thread_at_work())
thread.start()
print(is_thread_at_work())
may_end.set()
thread.join()
print(is_thread_at_work())
"""


@pytest.fixture
def handlers() -> Iterator[None]:
    """The handlers of this process, which are set back in the end."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


async def catch(numbers: tuple[signal.Signals, ...]) -> list[signal.Signals]:
    """Send signals to this process, and return those that came to the handler."""
    caught: list[signal.Signals] = []
    on_end_signals(caught.append)
    for number in numbers:
        signal.raise_signal(number)
    while signal.SIGTERM not in caught:
        await asyncio.sleep(0)
    return caught


def test_each_signal_is_acted_on(handlers: None) -> None:
    assert set(asyncio.run(catch(SIGNALS[::-1]))) == set(SIGNALS)


def test_nohup_s_ignored_signal_stays_ignored(handlers: None) -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    assert asyncio.run(catch((signal.SIGHUP, signal.SIGTERM))) == [signal.SIGTERM]


@pytest.mark.parametrize(("is_daemon", "is_at_work"), [(False, True), (True, False)])
def test_only_a_daemon_may_still_be_at_work(is_daemon: bool, is_at_work: bool) -> None:
    """In a process of its own, since this one has threads of other tests."""
    command = [sys.executable, "-c", HAS_A_THREAD, str(is_daemon)]
    said = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout
    assert said.splitlines() == ["False", str(is_at_work), "False"]


def test_leaving_waits_for_no_thread_but_the_log() -> None:
    command = [sys.executable, "-E", "-c", LEAVES]  # a variable may mean that nothing is buffered
    left = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert (left.returncode, left.stdout) == (7, "a result\n")
    assert json.loads(left.stderr)["event"] == "last words"


def test_leaving_without_a_reader_still_ends() -> None:
    program = "import os, sys; os.close(1); from service.cli.leaving import leave; leave(3)"
    assert subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, check=False).returncode == 3


def test_sigterm_interrupts_a_block_as_ctrl_c_does() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt), interrupted_by_sigterm():
        signal.raise_signal(signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) is before
