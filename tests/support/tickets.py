"""Admissions, their tickets and their clock."""

from collections.abc import Iterator
from contextlib import contextmanager

from service.inference.admission import Admission, Ticket


@contextmanager
def open_ticket() -> Iterator[Ticket]:
    """One admitted request of the running task. Its bytes have no limit."""
    admission = Admission(max_queue_size=1, max_queue_bytes=int(1e12), min_queue_size=lambda: 1)
    with admission.request() as ticket:
        yield ticket


class Clock:
    """Stands still until it is moved."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def crowded(max_queue_size: int, min_queue_size: int = 4) -> tuple[Admission, Clock]:
    """An admission, and the clock that it reads."""
    clock = Clock()
    admission = Admission(
        max_queue_size=max_queue_size,
        max_queue_bytes=1,
        min_queue_size=lambda: min_queue_size,
        clock=clock,
    )
    return admission, clock
