"""Watch of a store: which version it hands over, and what it says of the others."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs
from support.versions import publish_example

from service.errors import ChangedVersion, EngineFailed, InvalidVersion
from service.files import UnfitFile
from service.store.candidates import take_candidate
from service.store.layout import PINNED_FILE
from service.store.manage import pin_version, unpin
from service.store.versions import StoredVersion
from service.store.watch import Refusal, StoreWatch, Taken

pytestmark = pytest.mark.anyio
ENGINE = {"engine": "fake", "device": "cpu"}


class Watched:
    """A watch whose versions are taken unless `refusals` has a reason. `tried` lists what was handed over."""

    def __init__(self, store: Path) -> None:
        self.store = store
        self.refusals: dict[int, Refusal] = {}
        self.tried: list[int] = []
        self.waiting: list[str] = []
        self.watch = StoreWatch(store, "flowers", self.take, self.waiting.append, self.on_thread)

    async def take(self, stored: StoredVersion) -> Taken | Refusal:
        self.tried.append(stored.version)
        return self.refusals.get(stored.version) or Taken(ENGINE)

    async def on_thread(self, function: Callable[..., Any], *arguments: Any) -> Any:
        return function(*arguments)

    async def look(self) -> int | None:
        await self.watch.look()
        return self.watch.in_use

    def touch(self, version: int) -> None:
        """Change a file of a version, as its owner would who mends it."""
        path = self.store / "flowers" / str(version) / "saved_model.pb"
        path.write_bytes(path.read_bytes() + b"!")


@pytest.fixture
def watched(tmp_path: Path) -> Watched:
    return Watched(tmp_path / "model_store")


async def test_the_newest_version_is_taken_once(watched: Watched) -> None:
    for _ in range(2):
        publish_example(watched.store)
    assert [await watched.look() for _ in range(3)] == [2, 2, 2]
    assert (watched.tried, watched.watch.num_taken, watched.watch.num_refused) == ([2], 1, 0)


async def test_a_pin_is_followed_in_both_directions(watched: Watched) -> None:
    for _ in range(2):
        publish_example(watched.store)
    await watched.look()
    pin_version(watched.store, "flowers", 1)
    assert await watched.look() == 1
    unpin(watched.store, "flowers")
    assert await watched.look() == 2


async def test_a_refused_version_leads_to_the_one_before(watched: Watched) -> None:
    for _ in range(3):
        publish_example(watched.store)
    watched.refusals = {3: Refusal("It is bad."), 2: Refusal("It is bad, too.")}
    assert await watched.look() == 1
    assert watched.watch.refused == {3: "It is bad.", 2: "It is bad, too."}
    assert (watched.tried, watched.watch.num_refused) == ([3, 2, 1], 2)


async def test_a_refusal_is_final_until_files_change(watched: Watched) -> None:
    for _ in range(2):
        publish_example(watched.store)
    watched.refusals = {2: Refusal("It is bad.")}
    with capture_logs() as events:
        for _ in range(3):
            await watched.look()
    assert watched.tried == [2, 1]
    assert [event["event"] for event in events] == ["version refused", "model loaded"]
    watched.refusals = {}
    watched.touch(2)
    assert await watched.look() == 2
    assert watched.watch.refused == {}


async def test_a_passing_refusal_is_tried_at_each_look(watched: Watched) -> None:
    publish_example(watched.store)
    watched.refusals = {1: Refusal("The disk failed.", is_passing=True)}
    with capture_logs() as events:
        for _ in range(3):
            assert await watched.look() is None
    assert (watched.tried, len(events), watched.watch.num_refused) == ([1, 1, 1], 1, 1)
    watched.refusals = {}
    assert await watched.look() == 1


async def test_a_changed_version_in_use_is_taken_again(watched: Watched) -> None:
    publish_example(watched.store)
    await watched.look()
    watched.touch(1)
    assert [await watched.look(), await watched.look()] == [1, 1]
    assert watched.tried == [1, 1]


async def test_a_version_that_turns_bad_stays_in_use(watched: Watched) -> None:
    for _ in range(2):
        publish_example(watched.store)
    await watched.look()
    watched.touch(2)
    watched.refusals = {2: Refusal("It was changed.")}
    assert await watched.look() == 2
    assert watched.tried == [2, 2]


async def test_the_watch_says_why_no_version_serves(watched: Watched) -> None:
    await watched.look()
    publish_example(watched.store)
    watched.refusals = {1: Refusal("It is bad.")}
    await watched.look()
    assert [sentence.split(".")[0] for sentence in watched.waiting] == [
        "There is no version in model_store/flowers, which the service watches",
        "Version 1 of flowers is being loaded",
        "Version 1 was refused",
    ]
    assert watched.waiting[-1] == "Version 1 was refused. It is bad."


async def test_the_watch_names_a_candidate_to_take(watched: Watched) -> None:
    publish_example(watched.store, is_candidate=True)
    assert await watched.look() is None
    assert watched.tried == []
    assert watched.waiting == [
        "Model flowers has no version yet. Its newest candidate is 1. Take it with `flowers models take 1`. "
        "The service watches model_store/flowers."
    ]
    take_candidate(watched.store, "flowers", 1)
    assert await watched.look() == 1


async def test_the_watch_is_silent_while_a_version_serves(watched: Watched) -> None:
    publish_example(watched.store)
    await watched.look()
    watched.waiting.clear()
    publish_example(watched.store)
    watched.refusals = {2: Refusal("It is bad.")}
    await watched.look()
    (watched.store / "flowers" / PINNED_FILE).write_text("garbage")
    await watched.look()
    assert watched.waiting == []


async def test_an_unreadable_store_is_logged_once(watched: Watched) -> None:
    publish_example(watched.store)
    (watched.store / "flowers" / PINNED_FILE).write_text("garbage")
    with capture_logs() as events:
        for _ in range(2):
            assert await watched.look() is None
    assert [event["event"] for event in events] == ["model missing"]
    assert str(watched.store) not in watched.waiting[-1]


async def test_a_surprise_is_for_the_log_alone(watched: Watched) -> None:
    publish_example(watched.store)
    surprise = RuntimeError("cuda says: /opt/lib/secret.so")
    watched.refusals = {1: Refusal.of(surprise)}
    with capture_logs() as events:
        await watched.look()
    assert watched.watch.refused == {1: "It could not be loaded. See the service's log."}
    assert events[0]["exc_info"] is surprise
    assert "secret" in events[0]["reason"]


async def test_clients_do_not_see_the_store_s_folder(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    publish_example(watched.store)
    monkeypatch.chdir(watched.store.parent)
    for store in (watched.store, Path("model_store")):
        watched.watch.store = store
        watched.refusals = {1: Refusal(f"There is no {watched.store}/flowers/1/saved_model.pb.")}
        watched.touch(1)
        await watched.look()
        assert watched.watch.refused == {1: "There is no flowers/1/saved_model.pb."}


async def test_a_version_is_logged_with_its_engine(watched: Watched) -> None:
    async def take(_: StoredVersion) -> Taken:
        return Taken(ENGINE, "A GPU stays unused.")

    publish_example(watched.store)
    watched.watch.take = take
    with capture_logs() as events:
        await watched.look()
    loaded, warning = events
    assert (loaded["event"], loaded["engine"], loaded["device"], loaded["pinned"]) == (
        "model loaded", "fake", "cpu", False,
    )  # fmt: skip
    assert (warning["event"], warning["warning"]) == ("engine warning", "A GPU stays unused.")


def caused(cause: Exception) -> InvalidVersion:
    error = InvalidVersion("The version cannot be loaded.")
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "is_passing", "is_ours"),
    [
        (InvalidVersion("A file was changed."), False, True),
        (ChangedVersion("A file changed while it was loaded."), True, True),
        (caused(OSError(5, os.strerror(5))), True, True),
        (caused(UnfitFile(22, "it is no regular file")), False, True),
        (caused(RuntimeError("std::bad_alloc")), True, True),
        (EngineFailed("It gave no probabilities."), False, True),
        (MemoryError(), True, False),
        (ZeroDivisionError("a surprise"), False, False),
    ],
)
def test_disk_and_memory_are_passing_reasons(error: Exception, is_passing: bool, is_ours: bool) -> None:
    refusal = Refusal.of(error)
    assert (refusal.is_passing, refusal.is_ours) == (is_passing, is_ours)
    assert refusal.surprise is (None if is_ours else error)


def test_a_refusal_can_be_sent() -> None:
    refusal = Refusal.of(caused(OSError(5, "Input/output error")))
    assert "Input/output error" in refusal.cause
    assert Refusal(**json.loads(json.dumps(refusal.to_dict()))) == refusal


def test_a_surprise_stays_in_its_process() -> None:
    sent = Refusal(**json.loads(json.dumps(Refusal.of(ZeroDivisionError("a surprise")).to_dict())))
    assert (sent.surprise, sent.is_ours) == (None, False)
    assert "a surprise" in sent.reason


async def test_a_cache_explains_its_missing_versions(watched: Watched) -> None:
    watched.watch.explain_missing = lambda: "It is being pulled."
    assert await watched.look() is None
    assert watched.waiting == ["It is being pulled."]


async def test_an_empty_cache_is_looked_at_often(watched: Watched) -> None:
    assert await watched.look() is None
    assert watched.watch.pause_s(5) == 5, "a folder is not filled by a puller"
    watched.watch.explain_missing = lambda: "It is being pulled."
    assert await watched.look() is None
    assert watched.watch.pause_s(5) < 1
    assert watched.watch.pause_s(0.1) == 0.1
    publish_example(watched.store)
    assert await watched.look() == 1
    assert watched.watch.pause_s(5) == 5
