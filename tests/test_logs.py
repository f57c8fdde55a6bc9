import fcntl
import json
import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import structlog

from service.api.multipart import Form
from service.errors import MalformedRequest
from service.logs import FLUSH_TIMEOUT_S, MAX_LINE_LENGTH, MAX_WAITING_LINES, LogStream, LogWriter, configure_logging


class Pipe:
    """A log's descriptor, and its reader."""

    def __init__(self) -> None:
        self.reader, self.writer = os.pipe()

    def fill(self) -> int:
        """Leave no room in it. Returns the number of bytes that it took."""
        os.set_blocking(self.writer, False)
        num_bytes = 0
        with suppress(BlockingIOError):
            while True:
                num_bytes += os.write(self.writer, b"." * 1024)
        os.set_blocking(self.writer, True)
        return num_bytes

    def skip(self, num_bytes: int) -> None:
        while num_bytes:
            num_bytes -= len(os.read(self.reader, num_bytes))

    def read_lines(self, last: str) -> list[str]:
        """The lines up to this one."""
        data = b""
        while not data.endswith(f"{last}\n".encode()):
            data += os.read(self.reader, 65536)
        return data.decode().splitlines()

    def close_reader(self) -> None:
        os.close(self.reader)
        self.reader = -1


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    """Its writing end stays open, since the thread of a writer may still use it."""
    pipe = Pipe()
    yield pipe
    if pipe.reader >= 0:
        pipe.close_reader()  # a thread that waits for it goes on


def test_flush_waits_for_whole_lines_in_order(pipe: Pipe) -> None:
    writer = LogWriter(pipe.writer)
    lines = [f"line {number} {'x' * (number % 300)}" for number in range(MAX_WAITING_LINES // 4)]
    reading = threading.Thread(target=lambda: read.extend(pipe.read_lines(lines[-1])))
    read: list[str] = []
    reading.start()
    for line in lines:
        writer.write(line)
    writer.flush(60)
    reading.join()
    assert (read, writer.num_dropped) == (lines, 0)


def test_a_stuck_reader_costs_counted_lines_only(pipe: Pipe) -> None:
    num_bytes, num_lines = pipe.fill(), 3 * MAX_WAITING_LINES
    writer = LogWriter(pipe.writer)
    for number in range(num_lines):
        writer.write(f"line {number}")
    writer.flush(0.01)
    assert writer.num_dropped > MAX_WAITING_LINES
    num_dropped = writer.num_dropped
    pipe.skip(num_bytes)
    lines = read_until_empty(pipe, writer)
    assert len(lines) == num_lines - num_dropped
    assert lines == sorted(lines, key=lambda line: int(line.removeprefix("line ")))
    writer.write("again")
    assert pipe.read_lines("again") == ["again"]


def read_until_empty(pipe: Pipe, writer: LogWriter) -> list[str]:
    def write_the_last_line() -> None:
        writer.flush(60)
        writer.write("the last")

    threading.Thread(target=write_the_last_line).start()
    return pipe.read_lines("the last")[:-1]


def test_without_a_reader_each_line_is_dropped_and_counted(pipe: Pipe) -> None:
    pipe.close_reader()
    writer = LogWriter(pipe.writer)
    for _ in range(10):
        writer.write("a line")
    writer.flush(60)
    assert writer.num_dropped == 10


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this machine has no /dev/full")
def test_lines_for_a_full_disk_are_counted() -> None:
    with Path("/dev/full").open("w") as full:
        writer = LogWriter(full.fileno())
        writer.write("a line")
        writer.flush(60)
        assert writer.num_dropped == 1


def test_after_half_a_line_the_next_one_begins_anew(pipe: Pipe) -> None:
    """The reader leaves in the middle of a line, and another one takes its place."""
    writer = LogWriter(pipe.writer)
    writer.write("x" * 300_000)
    pipe.skip(100_000)
    pipe.close_reader()
    writer.flush(60)
    assert writer.num_dropped == 1
    other = Pipe()
    os.dup2(other.writer, pipe.writer)
    writer.write("a whole line")
    assert other.read_lines("a whole line") == ["", "a whole line"]
    writer.write("another")
    assert other.read_lines("another") == ["another"]
    other.close_reader()


def test_a_descriptor_that_does_not_block_gets_whole_lines(pipe: Pipe) -> None:
    fcntl.fcntl(pipe.writer, fcntl.F_SETFL, os.O_NONBLOCK)
    writer = LogWriter(pipe.writer)
    lines = [f"{number} {'x' * 9_000}" for number in range(50)]
    for line in lines:
        writer.write(line)
    assert pipe.read_lines(lines[-1]) == lines
    assert writer.num_dropped == 0


def test_a_signal_handler_may_log_during_a_log_call(pipe: Pipe) -> None:
    writer, num_signals = LogWriter(pipe.writer), 0
    pipe.fill()

    def handle(*_: object) -> None:
        nonlocal num_signals
        num_signals += 1
        writer.write("a signal")

    previous = signal.signal(signal.SIGVTALRM, handle)
    try:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0.0001, 0.0001)
        while num_signals < 30:
            writer.write("a line")
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, previous)


def test_text_becomes_lines_without_control_characters(pipe: Pipe) -> None:
    writer = LogWriter(pipe.writer)
    stream = LogStream(writer)
    print("one\ntwo\x1b[2J", 3, file=stream)
    stream.write("begun ")
    other = threading.Thread(target=lambda: print("of another thread", file=stream))
    other.start()
    other.join()
    stream.write("and ended\n")
    stream.write("begun only")
    stream.flush()
    print("the last", file=stream)
    lines = pipe.read_lines("the last")
    assert lines == [
        "one",
        r"two\x1b[2J 3",
        "of another thread",
        "begun and ended",
        "begun only",
        "the last",
    ]


class Log:
    """The configured log of this process, and its lines."""

    def __init__(self, log_format: Any, pipe: Pipe) -> None:
        self._pipe = pipe
        self.writer = configure_logging(log_format, pipe.writer)
        self.logger = structlog.get_logger()

    def lines(self) -> list[str]:
        """The lines since the last call."""
        self.writer.write("--")
        return self._pipe.read_lines("--")[:-1]


@pytest.fixture
def configure(pipe: Pipe, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], Log]]:
    """The logging of the process is put back afterwards."""
    for where, name in (
        (sys, "stderr"),
        (sys, "excepthook"),
        (sys, "unraisablehook"),
        (threading, "excepthook"),
        (logging, "raiseExceptions"),
    ):
        monkeypatch.setattr(where, name, getattr(where, name))
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield lambda log_format: Log(log_format, pipe)
    logging.captureWarnings(capture=False)
    root.handlers[:], root.level = handlers, level
    structlog.reset_defaults()


Configure = Callable[[str], Log]


def log_a_failure(logger: Any) -> None:
    photograph = " ".join(["the", "photograph"])
    try:
        int(f"why {len(photograph)}")
    except ValueError:
        logger.exception("request failed")


def test_events_outside_a_terminal_are_lines_of_json(configure: Configure) -> None:
    log = configure("auto")
    log.logger.info("model loaded", version=3)
    logging.getLogger("uvicorn.error").error("a library's %s", "words")
    log_a_failure(log.logger)
    lines: list[dict[str, Any]] = [json.loads(line) for line in log.lines()]
    assert [(line["event"], line["level"]) for line in lines] == [
        ("model loaded", "info"),
        ("a library's words", "error"),
        ("request failed", "error"),
    ]
    assert "ValueError: invalid literal" in lines[2]["exception"]
    assert all(line["timestamp"].endswith("Z") for line in lines)


def test_the_console_shows_no_local_variables(configure: Configure) -> None:
    log = configure("console")
    log_a_failure(log.logger)
    shown = log.lines()
    assert any("ValueError: invalid literal" in line for line in shown)
    assert not any("the photograph" in line for line in shown)


COMMANDS = {
    "escape": "\x1b]0;owned\x07",
    "c1": "\x9b31m",
    "erase": "\r\x1b[2K",
    "delete": "\x7f\b\b",
    "line": "x\n2030-01-01T00:00:00Z [info     ] request",
    "tab": "\t",
    "right to left": "\u202egpj.exe\u2066\u2069",
    "line separators": "\u2028\u2029\x85",
    "half a character": "\ud83d\udc9b",
}


@pytest.mark.parametrize("text", COMMANDS.values(), ids=COMMANDS)
@pytest.mark.parametrize("log_format", ["json", "console"])
def test_no_control_character_of_a_request_reaches_the_log(log_format: str, text: str, configure: Configure) -> None:
    log = configure(log_format)
    log.logger.info("request", path=text, request_id="1", names=[text], error=ValueError(text))
    log.logger.info(f"about {text}")
    logging.getLogger("uvicorn.error").warning("about %s", text)
    lines = log.lines()
    assert len(lines) == 3
    assert all(line.isprintable() for line in lines)


def test_a_traceback_keeps_its_lines_and_forges_none(configure: Configure) -> None:
    log = configure("console")
    try:
        json.loads("{").get("x")
    except ValueError as error:
        error.add_note("about \x1b[31m\n2030-01-01T00:00:00Z [info     ] request")
        log.logger.exception("request failed")
    first, *others = log.lines()
    assert "request failed" in first
    assert len(others) > 3
    assert all(line.startswith("    ") and line.isprintable() for line in others)


class Mute:
    def __repr__(self) -> str:
        raise RuntimeError

    __str__ = __repr__


class MuteError(Exception):
    __str__ = Mute.__repr__
    __repr__ = Mute.__repr__


def deep_list() -> list[Any]:
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    return deep


def circle() -> list[Any]:
    circle: list[Any] = []
    circle.append(circle)
    return circle


@pytest.mark.parametrize("make", [Mute, MuteError, deep_list, circle, lambda: float("nan"), lambda: {(1, 2): 3}])
@pytest.mark.parametrize("log_format", ["json", "console"])
def test_a_value_of_any_kind_is_logged(log_format: str, make: Callable[[], object], configure: Configure) -> None:
    log, value = configure(log_format), make()
    log.logger.info("odd", value=value)
    log.logger.error("odd", exc_info=value if isinstance(value, Exception) else None)
    logging.getLogger("library").error("odd %s", value)
    logging.getLogger("library").error("odd %d %d", "one")
    lines = log.lines()
    heads = [line for line in lines if not line.startswith("    ")]
    assert len(heads) == 4
    assert all("odd" in line for line in heads)
    if log_format == "json":
        assert all(json.loads(line, parse_constant=pytest.fail) for line in lines)


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_a_long_line_loses_its_middle(log_format: str, configure: Configure) -> None:
    log = configure(log_format)
    log.logger.info("long", status=200, value="begin" + "\u2028" * 100_000 + "end", other="o" * 100_000)
    print("begin" + "x" * 100_000 + "end", file=sys.stderr)
    event, text = log.lines()
    assert max(len(event), len(text)) <= MAX_LINE_LENGTH
    assert text.startswith("begin")
    assert text.endswith("end")
    assert "characters more" in event
    if log_format == "json":
        logged = json.loads(event)
        assert logged["status"] == 200
        assert logged["value"].startswith("begin")
        assert logged["value"].endswith("end")


WITH_TROUBLE_EVERYWHERE = """
import sys, threading, warnings, logging
from service.logs import configure_logging
configure_logging("json")
warnings.warn("a warning")
thread = threading.Thread(target=lambda: 1 / 0)
thread.start()
thread.join()
class Unraisable:
    def __del__(self):
        raise ValueError("of no use")
del (_ := [Unraisable()])[0]
logging.getLogger("uvicorn.error").error("%s %s", "one argument")
print("a sentence", file=sys.stderr)
{}["the end"]
"""


def test_python_s_own_reports_go_to_the_log() -> None:
    process = subprocess.run(
        [sys.executable, "-W", "default", "-c", WITH_TROUBLE_EVERYWHERE], capture_output=True, text=True, check=False
    )
    lines = process.stderr.splitlines()
    assert lines.pop(4) == "a sentence"
    events: list[dict[str, Any]] = [json.loads(line) for line in lines]
    assert "UserWarning: a warning" in events[0]["event"]
    assert [event["event"] for event in events[1:]] == [
        "thread failed",
        "exception ignored",
        "%s %s",
        "exception uncaught",
    ]
    assert "ZeroDivisionError" in events[1]["exception"]
    assert "of no use" in events[2]["exception"]
    assert "the end" in events[4]["exception"]
    assert process.returncode == 1


def test_a_process_with_a_stuck_reader_ends(pipe: Pipe) -> None:
    pipe.fill()
    process = subprocess.Popen([sys.executable, "-c", WITH_TROUBLE_EVERYWHERE], stderr=pipe.writer)
    assert process.wait(60) == 1


def test_a_child_may_inherit_the_stream(pipe: Pipe) -> None:
    stream = LogStream(LogWriter(pipe.writer))
    subprocess.run([sys.executable, "-c", "import os; os.write(2, b'child\\n')"], stderr=stream.fileno(), check=True)
    assert pipe.read_lines("child") == ["child"]


def test_the_bounds_are_those_of_the_documents() -> None:
    assert (MAX_WAITING_LINES, MAX_LINE_LENGTH, FLUSH_TIMEOUT_S) == (1024, 16_384, 0.5)


def test_a_library_s_record_keeps_level_and_traceback(configure: Configure) -> None:
    log = configure("json")
    logger = logging.getLogger("uvicorn.error")
    try:
        int("one")
    except ValueError:
        logger.warning("odd", exc_info=True)
    logger.info("of no interest")
    [line] = log.lines()
    logged = json.loads(line)
    assert (logged["event"], logged["level"]) == ("odd", "warning")
    assert "ValueError: invalid literal" in logged["exception"]


def test_a_broken_form_writes_no_line_of_its_own(configure: Configure) -> None:
    log = configure("json")
    form = Form(b"b", 100)
    with pytest.raises(MalformedRequest):
        form.write(b"--b\r\n(no header)\r\n")
    assert log.lines() == []


def test_a_thread_may_leave_without_a_line(configure: Configure) -> None:
    log = configure("json")
    thread = threading.Thread(target=sys.exit)
    thread.start()
    thread.join()
    assert log.lines() == []
