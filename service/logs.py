"""Log with its form, its bounded queue and its writing thread.

A log call never raises and never waits. A line that cannot be written is dropped and counted.
"""

import io
import json
import logging
import os
import queue
import select
import sys
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Literal

import structlog
from structlog.typing import EventDict

MAX_WAITING_LINES = 1024
MAX_LINE_LENGTH = 16 * 1024
"""In characters. A longer line loses its middle."""

FLUSH_TIMEOUT_S = 0.5

# A thread that wakes up for each line costs the event loop more than the line itself.
_PAUSE_S = 0.02
_LAST_RESORT = '{"event": "event without text", "level": "error"}'
# In ASCII, so that no control character is left. NaN is no JSON.
_to_json = json.JSONEncoder(default=repr, allow_nan=False).encode

log: structlog.typing.FilteringBoundLogger = structlog.get_logger()


def configure_logging(log_format: Literal["auto", "json", "console"], descriptor: int = 2) -> "LogWriter":
    """Send our events, the libraries' and the text of `sys.stderr` to one descriptor, through one queue.

    Events are lines of JSON, or lines for people on a terminal. At the end of the process `logging` flushes the queue.

    Returns:
        The writer, which knows the number of dropped lines.
    """
    writer = LogWriter(descriptor)
    is_console = takes_console(log_format, descriptor)
    renderer = _Renderer(_console_encoder(colors=os.isatty(descriptor)) if is_console else _to_json)
    structlog.configure(
        processors=[renderer],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=lambda *_: writer,
        cache_logger_on_first_use=True,
    )
    logging.basicConfig(handlers=[_Handler(renderer, writer)], level=logging.WARNING, force=True)
    logging.raiseExceptions = False
    logging.captureWarnings(True)
    logging.getLogger("python_multipart").setLevel(logging.CRITICAL)  # it warns of every bad body. The answer says it.
    sys.stderr = LogStream(writer)
    _log_uncaught_exceptions()
    return writer


def takes_console(log_format: Literal["auto", "json", "console"], descriptor: int = 2) -> bool:
    """Return whether the log is for people. Else its lines are JSON."""
    return log_format == "console" or (log_format == "auto" and os.isatty(descriptor))


class LogWriter:
    """A bounded queue of lines, and the thread that writes them.

    Args:
        descriptor: Where the lines go. Its reader may be slow, stuck or gone.
    """

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self.num_dropped = 0
        """Lines that were not written, or not to their end."""
        # A signal handler may log while its thread logs. Both may be entered twice.
        self._queue: queue.SimpleQueue[bytes | threading.Event] = queue.SimpleQueue()
        self._counting = threading.RLock()
        self._ends_mid_line = False
        threading.Thread(target=self._write_for_ever, name="log", daemon=True).start()

    def write(self, line: str) -> None:
        """Queue a line, which may hold newlines. Drop and count it where the queue is full."""
        try:
            self.write_lines([line.encode(errors="backslashreplace")])
        except MemoryError:
            self._drop(1)

    def write_lines(self, lines: Iterable[bytes]) -> None:
        """Queue encoded lines without their newlines. Drop and count those that the queue has no room for."""
        for line in lines:
            if self._queue.qsize() < MAX_WAITING_LINES:
                self._queue.put(line + b"\n")
            else:
                self._drop(1)

    debug = info = warning = error = critical = write  # structlog's names

    def flush(self, timeout_s: float = FLUSH_TIMEOUT_S) -> None:
        """Wait until the queued lines are written, but at most `timeout_s`."""
        is_written = threading.Event()
        self._queue.put(is_written)
        is_written.wait(timeout_s)

    def _drop(self, num_lines: int) -> None:
        with self._counting:
            self.num_dropped += num_lines

    def _write_for_ever(self) -> None:
        item: bytes | threading.Event | None = None
        while True:
            item = item or self._queue.get()
            if isinstance(item, threading.Event):
                item.set()
                item = None
                continue
            lines, item = [item], None
            try:
                item = self._take_more(lines)
                self._write_lines(lines)
            except Exception:  # no memory: the next lines may find some
                self._drop(len(lines))
            if item is None:
                time.sleep(_PAUSE_S)

    def _take_more(self, lines: list[bytes]) -> bytes | threading.Event | None:
        """Add the lines that fit one atomic write with these. Return what comes next."""
        num_bytes = len(lines[0])
        while not self._queue.empty():  # only this thread takes from it
            item = self._queue.get()
            if isinstance(item, threading.Event) or num_bytes + len(item) > select.PIPE_BUF:
                return item
            lines.append(item)
            num_bytes += len(item)
        return None

    def _write_lines(self, lines: list[bytes]) -> None:
        prefix = b"\n" if self._ends_mid_line else b""
        data = b"".join((prefix, *lines))
        num_written = _write_all(self.descriptor, data)
        if num_written:
            self._ends_mid_line = data[num_written - 1 : num_written] != b"\n"
        end = len(prefix)
        for line in lines:
            end += len(line)
            if end > num_written:
                self._drop(1)


class LogStream(io.TextIOBase):
    """A text stream into the log, in place of `sys.stderr`. It is no terminal, since it escapes control characters."""

    encoding = "utf-8"

    def __init__(self, writer: LogWriter) -> None:
        super().__init__()
        self._writer = writer
        self._begun = threading.local()  # the line that this thread has not ended yet

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._writer.descriptor

    def write(self, text: str) -> int:
        """Queue the lines that the text completes."""
        *lines, begun = (getattr(self._begun, "line", "") + text).split("\n")
        for line in lines:
            self._writer.write(_escape(_shorten(line, MAX_LINE_LENGTH)))
        self._begun.line = _shorten(begun, MAX_LINE_LENGTH)
        return len(text)

    def flush(self) -> None:
        """Queue the line that has begun. This does not wait for the writer."""
        if getattr(self._begun, "line", ""):
            self.write("\n")


class _Renderer:
    """A processor of structlog, from event to line. It never raises."""

    def __init__(self, to_line: Callable[[EventDict], str]) -> None:
        self._add_time = structlog.processors.TimeStamper(fmt="iso", utc=True)
        self._to_line = to_line

    def __call__(self, _: object, level: str, event: EventDict) -> str:
        """Return the line of an event, of at most `MAX_LINE_LENGTH` characters."""
        try:
            return self._render(level, event)
        except Exception:  # a value without a text, or no memory
            with suppress(Exception):
                if "exc_info" in event:
                    event["exception"] = event.pop("exc_info")
                return self._render(level, {key: _describe(value) for key, value in event.items()})
        return _LAST_RESORT

    def _render(self, level: str, event: EventDict) -> str:
        event = self._add_time(None, level, structlog.processors.add_log_level(None, level, event))
        event = structlog.processors.format_exc_info(None, level, event)
        line, longest = self._to_line(event), MAX_LINE_LENGTH
        while len(line) > MAX_LINE_LENGTH and longest > 100:
            longest //= 2
            texts = {key: _describe(value) for key, value in event.items()}
            event.update((key, _shorten(text, longest)) for key, text in texts.items() if len(text) > longest)
            line = self._to_line(event)
        return _shorten(line, MAX_LINE_LENGTH)


def _console_encoder(*, colors: bool) -> Callable[[EventDict], str]:
    """Return the encoder for people on a terminal. A client's text must not control the terminal."""
    render = structlog.dev.ConsoleRenderer(colors=colors)

    def to_line(event: EventDict) -> str:
        shown = {key: _escape(_shorten(_describe(value), MAX_LINE_LENGTH)) for key, value in event.items()}
        for key in ("exception", "stack"):  # these keep their lines, and an indent tells them from events
            if key in event:
                lines = _shorten(_describe(event[key]), MAX_LINE_LENGTH).split("\n")
                shown[key] = "\n".join(f"    {_escape(line)}" for line in lines)
        return render(None, "", shown)

    return to_line


class _Handler(logging.Handler):
    """The libraries' records, in the form of our events."""

    def __init__(self, renderer: _Renderer, writer: LogWriter) -> None:
        super().__init__()
        self._renderer = renderer
        self._writer = writer

    def emit(self, record: logging.LogRecord) -> None:
        try:
            text = record.getMessage().rstrip("\n")
        except Exception:  # its arguments do not fit, or have no text
            text = _describe(record.msg)
        event: EventDict = {"event": text}
        if record.exc_info:
            event["exc_info"] = record.exc_info
        if record.stack_info:
            event["stack"] = record.stack_info
        self._writer.write(self._renderer(None, record.levelname.lower(), event))

    def flush(self) -> None:
        """Wait for the writer, as `LogWriter.flush` does. `logging.shutdown` calls this."""
        self._writer.flush()


def _log_uncaught_exceptions() -> None:
    def log_of_thread(args: threading.ExceptHookArgs) -> None:
        if args.exc_type is not SystemExit:
            log.error("thread failed", exc_info=args.exc_value)

    sys.excepthook = lambda _, error, __: log.critical("exception uncaught", exc_info=error)
    threading.excepthook = log_of_thread
    sys.unraisablehook = lambda args: log.error("exception ignored", exc_info=args.exc_value)


def _write_all(descriptor: int, data: bytes) -> int:
    """Write the data, in pieces where it must be. Return the number of bytes written before an error."""
    num_written = 0
    while num_written < len(data):
        try:
            num_written += os.write(descriptor, data[num_written:])
        except BlockingIOError:
            ready = select.poll()
            ready.register(descriptor, select.POLLOUT)
            ready.poll()
        except OSError:  # the reader is gone, the disk is full
            break
    return num_written


def _describe(value: object) -> str:
    """Return the value as text, and its type where it has none."""
    try:
        return value if isinstance(value, str) else repr(value)
    except Exception:
        return f"<{type(value).__name__} without text>"


def _shorten(text: str, max_length: int) -> str:
    """Return the text without its middle where it is longer."""
    if len(text) <= max_length:
        return text
    mark = f" ... {len(text) - max_length} characters more ... "
    half = max(0, max_length - len(mark)) // 2
    return f"{text[:half]}{mark}{text[len(text) - half :]}"


def _escape(text: str) -> str:
    r"""Return the text with each unprintable character escaped, as in \x1b. Among them are newline and C1."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)
