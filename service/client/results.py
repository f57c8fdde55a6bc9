"""Results of many images: calls in flight, bounded in number, in the order of the images."""

from collections import deque
from collections.abc import Callable, Generator, Iterable
from pathlib import Path
from typing import NamedTuple, Protocol, TypeVar

from service.client.answers import Prediction
from service.errors import ClientError, InvalidParameter
from service.files import IMAGE_SUFFIXES, list_visible

DEFAULT_CONCURRENCY = 8
_MAX_CONCURRENCY = 1024

Outcome = Prediction | ClientError


class FileResult(NamedTuple):
    """Outcome of one file: its prediction, or the error that spoils only its own place."""

    path: Path
    outcome: Outcome


class Cancellable(Protocol):
    """A future or a task."""

    def cancel(self) -> bool:
        """Give it up."""


_Item = TypeVar("_Item")
_Started = TypeVar("_Started", bound=Cancellable)


def start_in_order(
    items: Iterable[_Item], start: Callable[[_Item], _Started], concurrency: int
) -> Generator[_Started, None, None]:
    """Yield what `start` returns, in the order of the items, and keep up to `concurrency` started.

    An item is taken when it starts. What is started is cancelled when the iterator is closed.
    """
    started: deque[_Started] = deque()
    try:
        for item in items:
            started.append(start(item))
            if len(started) == concurrency:
                yield started[0]
                started.popleft()
        while started:
            yield started[0]
            started.popleft()
    finally:
        for one in started:
            one.cancel()


def check_concurrency(concurrency: int) -> None:
    """Refuse a number of simultaneous requests out of range. Raises `InvalidParameter`."""
    if not 1 <= concurrency <= _MAX_CONCURRENCY:
        raise InvalidParameter(f"concurrency is {concurrency}. Give 1 to {_MAX_CONCURRENCY:,}.")


def list_images(folder: Path) -> list[Path]:
    """List the image files in a folder and below, sorted. Hidden files and other suffixes are left out.

    Raises `InvalidParameter` if it is no folder.
    """
    if not folder.is_dir():
        raise InvalidParameter(f"{folder} is no folder. Give a folder of images.")
    return [file for file in list_visible(folder) if file.suffix.lower() in IMAGE_SUFFIXES]
