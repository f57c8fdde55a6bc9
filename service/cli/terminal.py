"""What the verbs print with: results on stdout, progress on stderr."""

import io
import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console, RenderableType
from rich.measure import Measurement
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from service.errors import EngineFailed, FlowersError, InvalidVersion

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

_WIDE = 10_000  # columns


class _Messages(io.FileIO):
    """Standard error for people. A message that cannot be written changes no result and no exit code."""

    def write(self, data: "ReadableBuffer", /) -> int:
        size = memoryview(data).nbytes
        try:
            num_written = super().write(data)
        except OSError:
            return size
        return size if num_written is None else num_written


def open_standard_streams() -> None:
    """Open the null device in place of each standard stream that is closed.

    Else the first socket or file would be descriptor 2, and messages would go into it. From then on a message on
    standard error never raises. Characters that the encoding of standard output lacks are escaped.
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


def print_result(result: RenderableType) -> None:
    """On a terminal it is folded to the width there is; in a pipe or a file it gets the width it needs."""
    console = Console(highlight=False)
    if not console.is_terminal:
        options = console.options.update(max_width=_WIDE)
        console.width = max(console.width, Measurement.get(console, options, result).maximum)
    console.print(result)


def print_json(document: object, *, indent: int | None = None) -> None:
    """Print a document. Where the output's encoding lacks a character, JSON's own escapes take its place."""
    text = json.dumps(document, indent=indent, ensure_ascii=False)
    try:
        text.encode(getattr(sys.stdout, "encoding", None) or "utf-8")
    except UnicodeEncodeError:
        text = json.dumps(document, indent=indent)
    print(text)


def describe_error(error: FlowersError) -> str:
    """Its sentence; of a network that cannot be loaded or run also what the runtime said, which no stranger is told."""
    cause = error.__cause__
    if not isinstance(error, EngineFailed | InvalidVersion) or isinstance(cause, OSError | ValueError | None):
        return str(error)
    return f"{error} ({(str(cause).strip() or repr(cause)).splitlines()[0][:200]})"


@contextmanager
def progress_bar(title: str) -> Iterator[Callable[[int, int], None]]:
    """A bar on stderr if that is a terminal, else nothing; the function wants (done, in all)."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not sys.stderr.isatty()) as progress:
        task = progress.add_task(title, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)
