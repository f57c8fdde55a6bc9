"""Readiness as the probes say it: that of the replica, and not of one worker."""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from service.api.replica import Readiness, Replica
from service.inference.health import Health
from service.inference.usage import OwnUsage


@dataclass
class FakeReplica:
    """A replica of three workers, in the state that the test sets."""

    trouble: str = ""
    has_started: bool = False
    own: OwnUsage = field(default_factory=OwnUsage)
    others: tuple[OwnUsage, ...] = ()
    folder: Path = Path("replica")
    num_workers: int = 3

    def turn(self) -> AbstractContextManager[object]:
        return nullcontext()

    def num_ready(self) -> int:
        return 2

    def is_started(self) -> bool:
        return self.has_started

    def find_trouble(self) -> str:
        return self.trouble

    def num_dropped_lines(self) -> int:
        return 0

    def process_ids(self) -> tuple[int, ...]:
        return ()

    def cpu_s(self) -> float:
        return 0.0


@pytest.fixture
def health() -> Health:
    """A worker with a model."""
    health = Health()
    health.clear("model")
    health.is_started = True
    return health


def readiness(health: Health, replica: Replica | None) -> Readiness:
    return Readiness(health, replica)


def test_a_process_alone_is_ready_as_its_health(health: Health) -> None:
    alone = readiness(health, None)
    assert (alone.is_ready(), alone.num_ready(), alone.num_workers()) == (True, 1, 1)
    health.block("engine", "the engine hangs")
    assert (alone.is_ready(), alone.num_ready(), alone.num_workers()) == (False, 0, 1)
    assert alone.reasons() == ("the engine hangs",)


def test_a_process_alone_that_drains_counts_as_worker(health: Health) -> None:
    health.is_draining = True
    alone = readiness(health, None)
    assert (alone.is_ready(), alone.num_ready()) == (False, 1)


def test_a_blocked_worker_of_a_ready_replica_is_ready(health: Health) -> None:
    health.block("engine", "the engine hangs")
    assert readiness(health, FakeReplica()).is_ready()
    assert readiness(health, FakeReplica()).reasons() == ()


def test_a_good_worker_of_a_troubled_replica_is_unready(health: Health) -> None:
    troubled = readiness(health, FakeReplica("No worker can answer."))
    assert not troubled.is_ready()
    assert troubled.reasons() == ("No worker can answer.",)


def test_a_worker_s_own_reasons_say_more(health: Health) -> None:
    health.block("model", "There is no version in store/flowers.")
    assert readiness(health, FakeReplica("No worker can answer.")).reasons() == (
        "There is no version in store/flowers.",
    )


def test_a_draining_worker_is_never_ready(health: Health) -> None:
    health.is_draining = True
    assert readiness(health, FakeReplica()).reasons() == ("The service is shutting down.",)


def test_the_replica_has_started_with_its_first_worker() -> None:
    replica = FakeReplica()
    assert not readiness(Health(), None).is_started()
    assert not readiness(Health(), replica).is_started()
    replica.has_started = True
    assert readiness(Health(), replica).is_started()


def test_a_worker_with_a_model_has_started(health: Health) -> None:
    assert readiness(health, FakeReplica()).is_started()
    assert readiness(health, None).is_started()


def test_the_replica_counts_its_workers(health: Health) -> None:
    replicated = readiness(health, FakeReplica())
    assert (replicated.num_workers(), replicated.num_ready()) == (3, 2)
