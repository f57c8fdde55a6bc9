"""What the verbs print with: results on stdout, progress on stderr."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console, RenderableType
from rich.measure import Measurement
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

_WIDE = 10_000  # columns


def print_result(result: RenderableType) -> None:
    """On a terminal it is folded to the width there is; in a pipe or a file it gets the width it needs."""
    console = Console(highlight=False)
    if not console.is_terminal:
        options = console.options.update(max_width=_WIDE)
        console.width = max(console.width, Measurement.get(console, options, result).maximum)
    console.print(result)


@contextmanager
def progress_bar(title: str) -> Iterator[Callable[[int, int], None]]:
    """A bar on stderr if that is a terminal, else nothing; the function wants (done, in all)."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not sys.stderr.isatty()) as progress:
        task = progress.add_task(title, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)
