"""Rollout of a version to workers that the test plays: all take it, or none does."""

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

import pytest
from structlog.testing import capture_logs
from support.versions import publish_example

from service.errors import WorkerEnded
from service.store.watch import Refusal, Taken
from service.workers.process import WorkerProcess
from service.workers.rollout import Rollout

pytestmark = pytest.mark.anyio


class FakeWorker:
    """A worker that notes each command in the order of all workers, and answers as the test says.

    Attributes:
        outcome: What it answers to `open`.
        dies_at: Command at which it ends.
        hangs_at: Command that it never answers.
        may_open: Event that `open` waits for.
        is_running: Whether it is not frozen.
    """

    def __init__(self, number: int, order: list[tuple[int, str]]) -> None:
        self.number = number
        self.order = order
        self.outcome: Taken | Refusal | str = Taken({"engine": "fake"})
        self.dies_at = self.hangs_at = ""
        self.may_open = asyncio.Event()
        self.may_open.set()
        self.opened: list[int] = []
        self.live: list[int] = []
        self.notes: list[dict[str, Any]] = []
        self.killed = False
        self.is_running = True
        self.reason = ""

    async def ask(self, verb: str, **fields: Any) -> dict[str, Any]:
        self.order.append((self.number, verb))
        await asyncio.sleep(0)
        if verb == self.dies_at:
            raise WorkerEnded(f"Worker {self.number} has ended. A new one takes its place.")
        if verb == self.hangs_at:
            await asyncio.Event().wait()
        match verb:
            case "open":
                await self.may_open.wait()
                self.order.append((self.number, "opened"))
                self.opened.append(fields["version"])
                if isinstance(self.outcome, str):
                    return {"error": self.outcome}
                if isinstance(self.outcome, Refusal):
                    return {"refusal": self.outcome.to_dict()}
                return {"taken": vars(self.outcome)}
            case "switch":
                self.live.append(self.opened[-1])
            case "note":
                self.notes.append(fields)
        return {}

    def kill(self) -> None:
        self.killed = True


class Fleet:
    """Three workers, and the rollout to them."""

    def __init__(self, store: Path, threads: ThreadPoolExecutor) -> None:
        self.store = store
        self.order: list[tuple[int, str]] = []
        self.workers = [FakeWorker(number, self.order) for number in range(3)]
        self.rollout = Rollout(store, "flowers", threads, lambda: cast(list[WorkerProcess], list(self.workers)))

    async def look(self) -> list[int | None]:
        """The version that each worker serves after a look."""
        await self.rollout.look()
        return [worker.live[-1] if worker.live else None for worker in self.workers]

    async def publish_and_look(self) -> list[int | None]:
        publish_example(self.store)
        return await self.look()

    def steps(self, *verbs: str) -> list[tuple[int, str]]:
        """What was asked since the last call, of these commands alone."""
        steps = [step for step in self.order if step[1] in verbs]
        self.order.clear()
        return steps

    async def join(self, worker: FakeWorker) -> None:
        await self.rollout.join(cast(WorkerProcess, worker))


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    with ThreadPoolExecutor(1) as threads:
        yield Fleet(tmp_path / "model_store", threads)


async def test_all_workers_open_before_any_switches(fleet: Fleet) -> None:
    for version in (1, 2):
        assert await fleet.publish_and_look() == [version] * 3
        verbs = [verb for _, verb in fleet.steps("opened", "switch")]
        assert verbs == ["opened"] * 3 + ["switch"] * 3
    assert fleet.rollout.is_started


async def test_the_first_version_is_opened_by_all_at_once(fleet: Fleet) -> None:
    await fleet.publish_and_look()
    assert [verb for _, verb in fleet.steps("open", "opened")] == ["open"] * 3 + ["opened"] * 3


async def test_later_versions_are_opened_one_after_another(fleet: Fleet) -> None:
    await fleet.publish_and_look()
    fleet.order.clear()
    await fleet.publish_and_look()
    expected = [(number, verb) for number in range(3) for verb in ("open", "opened")]
    assert fleet.steps("open", "opened") == expected


@pytest.mark.parametrize("refusing", [0, 2])
async def test_one_refusal_leaves_the_old_version_everywhere(fleet: Fleet, refusing: int) -> None:
    await fleet.publish_and_look()
    fleet.order.clear()
    fleet.workers[refusing].outcome = Refusal("It is bad.")
    assert await fleet.publish_and_look() == [1, 1, 1]
    assert sorted(fleet.steps("forget", "switch")) == [(0, "forget"), (1, "forget"), (2, "forget")]
    assert all(worker.notes[-1]["refused"] == {2: "It is bad."} for worker in fleet.workers)


async def test_a_refused_first_version_is_served_by_none(fleet: Fleet) -> None:
    fleet.workers[1].outcome = Refusal("It is bad.")
    assert await fleet.publish_and_look() == [None, None, None]
    assert not fleet.rollout.is_started
    assert fleet.workers[0].notes[-1]["waiting"] == "Version 1 was refused. It is bad."


async def test_an_error_of_a_worker_stays_in_the_log(fleet: Fleet) -> None:
    fleet.workers[0].outcome = "RuntimeError('/opt/lib/secret.so')"
    with capture_logs() as events:
        await fleet.publish_and_look()
    assert "secret" in str(events)
    assert "secret" not in str([worker.notes for worker in fleet.workers])


async def test_a_corrupt_version_reaches_no_worker(fleet: Fleet) -> None:
    publish_example(fleet.store)
    (fleet.store / "flowers/1/saved_model.pb").write_bytes(b"another network")
    await fleet.look()
    assert fleet.steps("open") == []
    assert "saved_model.pb was changed" in fleet.workers[0].notes[-1]["refused"][1]


@pytest.mark.parametrize("is_first", [True, False])
async def test_a_death_while_loading_is_tried_again(fleet: Fleet, is_first: bool) -> None:
    before = None if is_first else (await fleet.publish_and_look())[0]
    fleet.workers[1].dies_at = "open"
    assert await fleet.publish_and_look() == [before] * 3
    fleet.workers[1].dies_at = ""
    newest = 1 if is_first else 2
    assert await fleet.look() == [newest] * 3
    assert fleet.workers[0].notes[-1]["refused"] == {}


async def test_a_version_that_ends_two_workers_is_refused(fleet: Fleet) -> None:
    await fleet.publish_and_look()
    fleet.workers[0].dies_at = "open"
    with capture_logs() as events:
        assert await fleet.publish_and_look() == [1, 1, 1]
        await fleet.look()
        fleet.steps()
        assert await fleet.look() == [1, 1, 1]
    assert fleet.steps("open") == []
    assert [event["reason"] for event in events if event["event"] == "version refused"] == [
        "A worker ended while it loaded this version."
    ]
    fleet.workers[0].dies_at = ""
    assert await fleet.publish_and_look() == [3, 3, 3]


async def test_a_death_leaves_no_load_behind(fleet: Fleet) -> None:
    """A load that goes on would end in the middle of the next try."""
    publish_example(fleet.store)
    fleet.workers[1].dies_at = "open"
    fleet.workers[2].may_open.clear()
    looking = asyncio.create_task(fleet.look())
    while (1, "open") not in fleet.order:
        await asyncio.sleep(0)
    for _ in range(20):
        await asyncio.sleep(0)
    assert not fleet.steps("forget")
    fleet.workers[2].may_open.set()
    await looking
    assert (2, "forget") in fleet.steps("forget")


async def test_a_worker_that_does_not_switch_is_killed(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.workers.rollout.SWITCH_TIMEOUT_S", 0.01)
    fleet.workers[1].hangs_at = "switch"
    assert await fleet.publish_and_look() == [1, None, 1]
    assert [worker.killed for worker in fleet.workers] == [False, True, False]
    assert "'switch'" in fleet.workers[1].reason


async def test_a_frozen_worker_does_not_keep_the_old_version(fleet: Fleet) -> None:
    await fleet.publish_and_look()
    frozen = fleet.workers[1]
    frozen.is_running = False
    assert await fleet.publish_and_look() == [2, 1, 2]
    assert [worker.killed for worker in fleet.workers] == [False, True, False]
    assert "version 2" in frozen.reason
    assert fleet.steps("switch")[-2:] == [(0, "switch"), (2, "switch")]


async def test_a_frozen_worker_outlives_a_refused_version(fleet: Fleet) -> None:
    await fleet.publish_and_look()
    fleet.workers[1].is_running = False
    fleet.workers[0].outcome = Refusal("It has no classes.")
    await fleet.publish_and_look()
    assert not any(worker.killed for worker in fleet.workers)


async def test_a_death_at_the_switch_stops_no_other(fleet: Fleet) -> None:
    fleet.workers[0].dies_at = "switch"
    assert await fleet.publish_and_look() == [None, 1, 1]
    assert not any(worker.killed for worker in fleet.workers)


async def test_without_workers_a_version_waits(fleet: Fleet) -> None:
    workers, fleet.workers = fleet.workers, []
    await fleet.publish_and_look()
    fleet.workers = workers
    assert await fleet.look() == [1, 1, 1]


async def test_a_new_worker_gets_the_current_version(fleet: Fleet) -> None:
    publish_example(fleet.store)
    await fleet.publish_and_look()
    new = fleet.workers[1] = FakeWorker(1, fleet.order)
    await fleet.join(new)
    assert (new.opened, new.live) == ([2], [2])
    assert (new.notes[-1]["num_taken"], new.notes[-1]["waiting"]) == (1, "")


async def test_a_new_worker_without_version_learns_why(fleet: Fleet) -> None:
    await fleet.look()
    new = fleet.workers[1] = FakeWorker(1, fleet.order)
    await fleet.join(new)
    assert new.opened == []
    assert "model_store/flowers" in new.notes[-1]["waiting"]


async def test_a_new_worker_that_cannot_load_tries_again(fleet: Fleet) -> None:
    await fleet.publish_and_look()
    new = fleet.workers[1] = FakeWorker(1, fleet.order)
    new.outcome = Refusal("There is not enough memory.", is_passing=True)
    with capture_logs() as events:
        await fleet.join(new)
        await fleet.look()
    assert [event["event"] for event in events] == ["worker without model"], "once, and not at each look"
    assert new.notes[-1]["waiting"] == "Version 1 cannot be loaded again. See the service's log."
    new.outcome = Taken({"engine": "fake"})
    assert await fleet.look() == [1, 1, 1]
    fleet.order.clear()
    await fleet.look()
    assert fleet.steps("open") == [], "it has the version by now"


async def test_a_new_worker_that_ends_disturbs_nothing(fleet: Fleet) -> None:
    await fleet.publish_and_look()
    for verb in ("open", "switch", "note"):
        new = FakeWorker(1, fleet.order)
        new.dies_at = verb
        await fleet.join(new)
    assert await fleet.look() == [1, 1, 1]


async def test_a_new_worker_waits_for_a_running_rollout(fleet: Fleet) -> None:
    await fleet.publish_and_look()
    publish_example(fleet.store)
    fleet.workers[2].may_open.clear()
    looking = asyncio.create_task(fleet.look())
    while (2, "open") not in fleet.order[-1:]:
        await asyncio.sleep(0)
    new = FakeWorker(3, fleet.order)
    joining = asyncio.create_task(fleet.join(new))
    for _ in range(20):
        await asyncio.sleep(0)
    assert new.opened == []
    fleet.workers[2].may_open.set()
    await asyncio.gather(looking, joining)
    assert new.live == [2]


async def test_facts_are_sent_when_they_change(fleet: Fleet) -> None:
    await fleet.publish_and_look()
    await fleet.look()
    await fleet.look()
    assert len(fleet.steps("note")) == 3
    fleet.workers[0].outcome = Refusal("It is bad.")
    await fleet.publish_and_look()
    assert len(fleet.steps("note")) == 3
