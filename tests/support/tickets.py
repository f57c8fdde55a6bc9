"""Tickets of an admission that has room."""

from collections.abc import Iterator
from contextlib import contextmanager

from service.inference.admission import Admission, Ticket


@contextmanager
def open_ticket() -> Iterator[Ticket]:
    """One admitted request of the running task. Its bytes have no limit."""
    admission = Admission(max_queue_size=1, max_queue_bytes=int(1e12), min_queue_size=lambda: 1)
    with admission.request() as ticket:
        yield ticket
