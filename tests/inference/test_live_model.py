import asyncio
import os
import sys
import threading
from contextlib import ExitStack
from pathlib import Path

import pytest
from fakes import FakeEngine, Loader
from structlog.testing import capture_logs
from versions import publish_example

from service.errors import DeviceUnavailable, EngineFailed, FlowersError, NotReady
from service.inference.health import Health
from service.inference.live_model import LiveModel
from service.store.resolve import pin_version, remove_version, unpin

pytestmark = pytest.mark.anyio


class Watch:
    """A LiveModel on a store of its own; looks only when the test says so."""

    def __init__(self, store: Path) -> None:
        self.store = store
        self.loader = Loader()
        self.fatal: list[FlowersError] = []
        self.live_model = LiveModel(
            store, "flowers", load=self.loader, health=Health(),
            max_batch_size=4, reload_interval_s=3600, on_fatal=self.fatal.append,
        )  # fmt: skip

    async def look(self) -> int | None:
        await self.live_model.look()
        return self.live_model.current.version if self.live_model.current else None


@pytest.fixture
def watch(tmp_path: Path) -> Watch:
    return Watch(tmp_path / "model_store")


def spoil(store: Path, version: int) -> None:
    """Change a byte of a published file, as a bad disk or a hurried hand would."""
    (store / "flowers" / str(version) / "saved_model.pb").write_bytes(b"another network")


async def test_an_empty_store_is_not_ready_and_says_which_folder_is_watched(watch: Watch) -> None:
    assert await watch.look() is None
    assert not watch.live_model.health.is_started
    [reason] = watch.live_model.health.reasons
    assert "model_store/flowers" in reason
    assert "flowers train" in reason
    with pytest.raises(NotReady, match="model_store/flowers"):
        watch.live_model.require()
    assert watch.live_model.min_queue_size() == 1


async def test_the_first_version_in_an_empty_store_makes_it_ready_once_warm(watch: Watch) -> None:
    await watch.look()
    publish_example(watch.store)
    assert await watch.look() == 1
    assert watch.loader.engines[1].is_warm
    assert watch.live_model.min_queue_size() == watch.loader.engines[1].min_queue_size > 1
    assert watch.live_model.health.is_started
    assert watch.live_model.health.is_ready


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere threads have no priority of their own")
async def test_the_first_version_is_loaded_at_once_and_further_ones_behind_the_traffic(watch: Watch) -> None:
    def niceness() -> int:
        return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())

    def load(folder: Path) -> FakeEngine:
        seen.append(niceness())
        return watch.loader(folder)

    seen: list[int] = []
    watch.live_model._load = load
    for _ in range(2):
        publish_example(watch.store)
        await watch.look()
    assert seen == [niceness(), min(niceness() + 15, 19)]


async def test_a_failed_warm_up_means_not_ready(watch: Watch) -> None:
    publish_example(watch.store)
    engine = watch.loader.engines[1] = FakeEngine()
    engine.warm_up_error = EngineFailed("the warm-up picture got no probabilities")
    assert await watch.look() is None
    assert watch.live_model.health.reasons == ("version 1 was refused: the warm-up picture got no probabilities",)
    assert engine.closed.is_set()


async def test_a_corrupt_version_is_never_loaded(watch: Watch) -> None:
    publish_example(watch.store)
    spoil(watch.store, 1)
    assert await watch.look() is None
    assert watch.loader.loads == []
    assert "saved_model.pb was changed" in watch.live_model.health.reasons[0]


async def test_a_new_version_is_switched_to_and_the_old_engine_closed_after_its_last_use(
    watch: Watch,
) -> None:
    publish_example(watch.store)
    await watch.look()
    publish_example(watch.store)
    with ExitStack() as request:
        loaded = watch.live_model.require()
        request.enter_context(loaded.in_use())
        assert await watch.look() == 2
        assert watch.live_model.health.is_ready
        assert loaded.version == 1
        assert not watch.loader.engines[1].closed.is_set()
    assert await asyncio.to_thread(watch.loader.engines[1].closed.wait, 60)


async def test_a_bad_version_is_refused_once_with_one_event_and_the_old_one_stays(watch: Watch) -> None:
    publish_example(watch.store)
    await watch.look()
    publish_example(watch.store)
    spoil(watch.store, 2)
    with capture_logs() as events:
        for _ in range(3):
            assert await watch.look() == 1
    assert [event["event"] for event in events] == ["version refused"]
    assert events[0]["version"] == 2
    assert events[0]["still_live"] == 1
    assert "saved_model.pb was changed" in watch.live_model.refused[2]
    assert watch.live_model.health.is_ready


async def test_a_refused_version_is_tried_again_when_its_files_change(watch: Watch) -> None:
    publish_example(watch.store)
    spoil(watch.store, 1)
    await watch.look()
    (watch.store / "flowers/1/saved_model.pb").write_bytes(b"no network")  # as it was published
    assert await watch.look() == 1
    assert watch.live_model.refused == {}


async def test_a_service_that_starts_with_a_bad_newest_version_serves_the_one_before(watch: Watch) -> None:
    publish_example(watch.store)
    publish_example(watch.store)
    spoil(watch.store, 2)
    assert await watch.look() == 1


async def test_the_version_in_use_goes_on_when_its_files_are_spoilt_or_gone(watch: Watch) -> None:
    publish_example(watch.store)
    await watch.look()
    spoil(watch.store, 1)
    assert await watch.look() == 1
    remove_version(watch.store, "flowers", 1, force=True)
    assert await watch.look() == 1
    assert watch.live_model.health.is_ready


async def test_a_pin_takes_the_service_back_and_unpinning_forward_again(watch: Watch) -> None:
    publish_example(watch.store)
    publish_example(watch.store)
    assert await watch.look() == 2
    pin_version(watch.store, "flowers", 1)
    assert await watch.look() == 1
    assert await watch.look() == 1
    unpin(watch.store, "flowers")
    assert await watch.look() == 2
    assert watch.loader.loads == [2, 1, 2]


async def test_nothing_is_loaded_twice_while_the_store_stays_as_it_is(watch: Watch) -> None:
    publish_example(watch.store)
    for _ in range(3):
        await watch.look()
    assert watch.loader.loads == [1]


async def test_a_look_reads_nothing_of_versions_older_than_that_in_use(
    watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(3):
        publish_example(watch.store)
    pin_version(watch.store, "flowers", 2)
    assert await watch.look() == 2
    unpin(watch.store, "flowers")
    spoil(watch.store, 3)
    seen: list[str] = []

    def note(folder: Path) -> str:
        seen.append(folder.name)
        return ""

    monkeypatch.setattr("service.inference.live_model._fingerprint", note)
    assert await watch.look() == 2
    assert seen == ["3", "2"]


async def test_classes_that_do_not_fit_the_network_are_refused(watch: Watch) -> None:
    publish_example(watch.store)
    watch.loader.engines[1] = FakeEngine(num_classes=7)
    assert await watch.look() is None
    assert "7 classes" in watch.live_model.refused[1]


async def test_squares_that_do_not_fit_the_network_are_refused(watch: Watch) -> None:
    publish_example(watch.store)
    watch.loader.engines[1] = FakeEngine(image_size=96)
    assert await watch.look() is None
    assert "96 pixels" in watch.live_model.refused[1]


async def test_what_a_runtime_says_stays_in_the_log(watch: Watch) -> None:
    publish_example(watch.store)
    engine = watch.loader.engines[1] = FakeEngine()
    engine.warm_up_error = RuntimeError("cuda says: /opt/lib/secret.so")
    with capture_logs() as events:
        await watch.look()
    assert "secret" not in watch.live_model.refused[1]
    assert "secret" in events[-1]["reason"]


async def test_where_the_store_lies_stays_in_the_log(watch: Watch) -> None:
    publish_example(watch.store)
    engine = watch.loader.engines[1] = FakeEngine()
    engine.warm_up_error = EngineFailed(f"no network at {watch.store}/flowers/1/saved_model.pb")
    with capture_logs() as events:
        await watch.look()
    assert watch.live_model.refused[1] == "no network at flowers/1/saved_model.pb"
    assert str(watch.store) in events[-1]["reason"]


async def test_a_failing_disk_is_tried_again_at_every_look_and_logged_once(watch: Watch) -> None:
    publish_example(watch.store)
    engine = watch.loader.engines[1] = FakeEngine()
    engine.warm_up_error = OSError("input/output error")
    with capture_logs() as events:
        await watch.look()
        await watch.look()
        engine.warm_up_error = None
        assert await watch.look() == 1
    assert [event["event"] for event in events] == ["version refused", "model loaded"]


async def test_a_device_that_is_not_there_is_fatal(watch: Watch) -> None:
    publish_example(watch.store)
    engine = watch.loader.engines[1] = FakeEngine()
    engine.warm_up_error = DeviceUnavailable("no GPU that can be used")
    await watch.look()
    assert [str(error) for error in watch.fatal] == ["no GPU that can be used"]


async def test_what_cannot_be_had_is_fatal_in_an_empty_store_too(tmp_path: Path) -> None:
    def prepare() -> None:
        raise DeviceUnavailable("no GPU that can be used")

    fatal: list[FlowersError] = []
    live_model = LiveModel(
        tmp_path, "flowers", load=Loader(), prepare=prepare, health=Health(),
        max_batch_size=4, reload_interval_s=3600, on_fatal=fatal.append,
    )  # fmt: skip
    live_model.start()
    async with asyncio.timeout(60):
        while not fatal:
            await asyncio.sleep(0)
    await live_model.stop()
    assert str(fatal[0]) == "no GPU that can be used"


async def test_the_watch_looks_by_itself_and_survives_surprises(watch: Watch, monkeypatch: pytest.MonkeyPatch) -> None:
    looked = asyncio.Event()
    looks = 0

    async def look() -> None:
        nonlocal looks
        looks += 1
        if looks == 1:
            raise ZeroDivisionError
        looked.set()

    watch.live_model._reload_interval_s = 0.001
    monkeypatch.setattr(watch.live_model, "look", look)
    with capture_logs() as events:
        watch.live_model.start()
        await looked.wait()
        await watch.live_model.stop()
    assert events[0]["event"] == "the look at the model store failed"


async def test_a_stop_does_not_wait_for_a_load(watch: Watch) -> None:
    publish_example(watch.store)
    watch.loader.may_load.clear()
    watch.live_model.start()
    while not watch.loader.loads:
        await asyncio.sleep(0)
    await watch.live_model.stop()
    assert watch.live_model.current is None
    watch.loader.may_load.set()
