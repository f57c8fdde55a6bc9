"""What the verbs print with: results on stdout, progress on stderr."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console, RenderableType
from rich.measure import Measurement
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from service.errors import EngineFailed, FlowersError, InvalidVersion

_WIDE = 10_000  # columns


def print_result(result: RenderableType) -> None:
    """On a terminal it is folded to the width there is; in a pipe or a file it gets the width it needs."""
    console = Console(highlight=False)
    if not console.is_terminal:
        options = console.options.update(max_width=_WIDE)
        console.width = max(console.width, Measurement.get(console, options, result).maximum)
    console.print(result)


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
