"""Settings of one worker: its share of the threads, and the limits of all."""

from typing import Any

import pytest

from service.cli import serve_workers
from service.cli.serve_workers import share_settings
from service.settings import ServeSettings


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with eight cores and much memory."""
    monkeypatch.setattr(serve_workers, "count_cores", lambda: 8)
    monkeypatch.setattr(serve_workers, "memory_left", lambda: 2**40)


def share(num_workers: int, **settings: Any) -> ServeSettings:
    return share_settings(ServeSettings(**settings), num_workers)


@pytest.mark.parametrize(
    ("engine_threads", "num_workers", "threads"), [(0, 2, 4), (0, 3, 2), (0, 8, 1), (0, 16, 1), (6, 2, 3), (1, 4, 1)]
)
def test_each_worker_has_its_part_of_the_cores(engine_threads: int, num_workers: int, threads: int) -> None:
    assert share(num_workers, engine_threads=engine_threads).engine_threads == threads


@pytest.mark.parametrize(
    ("decode_threads", "num_workers", "threads"),
    [(0, 2, 5), (0, 16, 2), (6, 2, 3), (6, 4, 1), (1, 4, 1)],  # by itself one more than cores
)
def test_each_worker_has_its_part_of_the_decoders(decode_threads: int, num_workers: int, threads: int) -> None:
    assert share(num_workers, decode_threads=decode_threads).decode_threads == threads


@pytest.mark.parametrize(("log_format", "written"), [("auto", "json"), ("json", "json"), ("console", "console")])
def test_a_worker_s_log_has_the_supervisor_s_form(log_format: str, written: str) -> None:
    """Standard error is no terminal here. A worker's is a socket, so `auto` would always mean JSON there."""
    assert share(2, log_format=log_format).log_format == written


def test_limits_of_the_replica_are_not_divided() -> None:
    limits: dict[str, Any] = {
        "max_queue_size": 77,
        "max_queue_bytes": 10**6,
        "max_connections": 55,
        "max_batch_size": 9,
    }
    shared = share(4, **limits)
    assert {name: getattr(shared, name) for name in limits} == limits


def test_half_the_memory_bounds_the_replica_s_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """The supervisor measures it once. Each worker would find less than the one before."""
    monkeypatch.setattr(serve_workers, "memory_left", lambda: 2_000_000)
    assert share(4, max_queue_bytes=5_000_000).max_queue_bytes == 1_000_000


def test_a_worker_has_no_workers_itself() -> None:
    assert share(4, workers=4).workers == 1


def test_other_settings_stay() -> None:
    shared = share(2, model="roses", drain_delay_s=3.0, precision="float32")
    assert (shared.model, shared.drain_delay_s, shared.precision) == ("roses", 3.0, "float32")
