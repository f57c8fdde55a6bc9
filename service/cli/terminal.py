"""Output of the verbs: results on stdout, progress on stderr."""

import io
import json
import os
import shutil
import sys
import tempfile
import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, TextIO

from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.measure import Measurement
from rich.progress import BarColumn, MofNCompleteColumn, Progress, Task, TextColumn, TimeRemainingColumn
from rich.segment import Segment
from rich.text import Text

from service.data.names import can_be_shown
from service.errors import EngineFailed, FlowersError, InvalidVersion

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

_WIDE = 10_000  # columns
_NARROW = 40  # columns; with fewer, rich and cyclopts do not end
_MAX_KEPT_BYTES = 64 * 1024


class _Messages(io.FileIO):
    """Standard error. A message that cannot be written changes neither result nor exit code."""

    def write(self, data: "ReadableBuffer", /) -> int:
        size = memoryview(data).nbytes
        try:
            num_written = super().write(data)
        except OSError:
            return size
        return size if num_written is None else num_written


def open_standard_streams() -> None:
    """Open the null device in place of each closed standard stream.

    Otherwise the first socket or file would be descriptor 2, and would get the messages. A message on standard error
    never raises from then on. Characters that the encoding of standard output lacks are escaped.
    """
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # the lowest free number, which is this one
    sys.stdin = sys.stdin or os.fdopen(0, closefd=False)
    sys.stdout = sys.stdout or os.fdopen(1, "w", closefd=False)
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors in ("strict", "surrogateescape"):
        sys.stdout.reconfigure(errors="backslashreplace")
    messages = io.BufferedWriter(_Messages(2, "w", closefd=False))
    encoding = sys.stderr.encoding if sys.stderr else None
    sys.stderr = io.TextIOWrapper(messages, encoding, "backslashreplace", line_buffering=True)


def printable(text: str) -> str:
    """Replace control characters, which would command the terminal, with their escapes.

    Newline, tab and the joiners of some scripts are left.
    """
    return "".join(
        char if char in "\n\t" or can_be_shown(char) else char.encode("unicode_escape").decode("ascii") for char in text
    )


def complain(message: str) -> None:
    """Print a message of this program on standard error. A terminal gets it in lines of its width, broken at spaces."""
    text = f"flowers: {printable(message)}"
    if sys.stderr.isatty():
        width = max(_NARROW, shutil.get_terminal_size().columns)
        lines = (
            textwrap.wrap(line, width, break_on_hyphens=False, break_long_words=False) for line in text.split("\n")
        )
        text = "\n".join("\n".join(line) for line in lines)
    print(text, file=sys.stderr)


@contextmanager
def open_messages() -> Iterator[TextIO]:
    """Open a stream to standard error that `captured_messages` leaves alone."""
    try:
        descriptor = sys.stderr.fileno()
    except (OSError, ValueError):  # a stream in memory
        yield sys.stderr
        return
    messages = io.BufferedWriter(_Messages(os.dup(descriptor), "w"))
    with io.TextIOWrapper(messages, sys.stderr.encoding, "backslashreplace", line_buffering=True) as stream:
        yield stream


@contextmanager
def captured_messages() -> Iterator[None]:
    """Hold back what libraries write to descriptor 2. It is printed if an error ends the block."""
    sys.stderr.flush()
    with tempfile.TemporaryFile() as kept:
        before = os.dup(2)
        os.dup2(kept.fileno(), 2)
        try:
            yield
        except BaseException:
            os.dup2(before, 2)
            kept.seek(0)
            with suppress(OSError):
                os.write(2, kept.read(_MAX_KEPT_BYTES))
            raise
        finally:
            os.dup2(before, 2)
            os.close(before)


def print_result(result: RenderableType) -> None:
    """Print a result. A terminal folds it to its width. A pipe or a file gets the width that it needs."""
    console = open_console()
    if not console.is_terminal:
        options = console.options.update(max_width=_WIDE)
        console.width = max(console.width, Measurement.get(console, options, result).maximum)
    console.print(_Printable(result))


class _Printable:
    """Result whose texts reach the terminal as `printable`."""

    def __init__(self, result: RenderableType) -> None:
        self._result = result

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for segment in console.render(self._result, options):
            yield segment if segment.control else Segment(printable(segment.text), segment.style)


def open_console(file: TextIO | None = None) -> Console:
    """Open a console on standard output, or on `file`. It takes texts as they are, and has a least width."""
    console = Console(file=file, highlight=False, markup=False, emoji=False)
    if console.width < _NARROW:
        console.width = _NARROW
    return console


def print_json(document: object, *, indent: int | None = None) -> None:
    """Print a document. JSON's escapes replace characters that the output's encoding lacks."""
    text = json.dumps(document, indent=indent, ensure_ascii=False)
    try:
        text.encode(getattr(sys.stdout, "encoding", None) or "utf-8")
    except UnicodeEncodeError:
        text = json.dumps(document, indent=indent)
    print(text)


def describe_error(error: FlowersError) -> str:
    """Return the text of an error, with the runtime's own words for a network that cannot be loaded or run."""
    cause = error.__cause__
    if not isinstance(error, EngineFailed | InvalidVersion) or isinstance(cause, OSError | ValueError | None):
        return str(error)
    return f"{error} ({(str(cause).strip() or repr(cause)).splitlines()[0][:200]})"


def as_text(value: Any, *, is_compact: bool = False) -> str:
    """Write a value of a JSON document for a table. None and what is empty are "none".

    With `is_compact` a dict has one line. Otherwise each entry has a line.
    """
    match value:
        case dict():
            colon, end = (" ", ", ") if is_compact else (": ", "\n")
            entries = (f"{name}{colon}{as_text(item, is_compact=is_compact)}" for name, item in value.items())
            return end.join(entries) or "none"
        case list() | tuple():
            end = "\n" if any(isinstance(item, dict) for item in value) else ", "
            return end.join(as_text(item, is_compact=True) for item in value) or "none"
        case float():
            return f"{value:.4g}"
    return "none" if value is None else str(value)


@contextmanager
def progress_bar(title: str, file: TextIO | None = None) -> Iterator[Callable[[int, int | None], None]]:
    """Show a bar on `file`, or on stderr, if that is a terminal. The function that moves it takes (done, total)."""
    with make_progress(open_console(file or sys.stderr)) as progress:
        task = progress.add_task(printable(title), total=None, figures="")
        yield lambda done, total: progress.update(task, completed=done, total=total)


def make_progress(console: Console) -> Progress:
    """Make bars for a console, if that is a terminal. They leave no trace. A task needs a field `figures`."""
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        _Count(),
        TextColumn("{task.fields[figures]}", markup=False),
        _Time(),
        console=console,
        transient=True,  # the last bar would stand beside the result, or the error
        disable=not console.is_terminal,
    )


class _Count(MofNCompleteColumn):
    """Column with done and total. It is empty if the total is unknown."""

    def render(self, task: Task) -> Text:
        return Text() if task.total is None else super().render(task)


class _Time(TimeRemainingColumn):
    """Column with the time left, or the time passed if the former is unknown."""

    max_refresh = 0.5

    def render(self, task: Task) -> Text:
        if task.total is not None and task.time_remaining is not None:
            return super().render(task)
        return Text(f"{int(task.elapsed or 0)} s so far", style="progress.elapsed")
