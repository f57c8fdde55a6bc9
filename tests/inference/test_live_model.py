import asyncio
import os
import shutil
import sys
import threading
from contextlib import ExitStack
from pathlib import Path
from unittest.mock import Mock

import pytest
from structlog.testing import capture_logs
from support.fakes import FakeEngine, Loader
from support.versions import example_metadata, publish_example

from service.engines.wish import EngineWish
from service.errors import ChangedVersion, DeviceUnavailable, EngineFailed, FlowersError, InvalidVersion, NotReady
from service.files import FileStamp, stamp_file
from service.inference.health import Health
from service.inference.live_model import LiveModel
from service.store.layout import METADATA_FILE, PINNED_FILE
from service.store.manage import pin_version, remove_version, unpin
from service.store.verify import VerifiedVersion

pytestmark = pytest.mark.anyio
ANY = EngineWish()


class Watch:
    """A LiveModel on a store of its own; looks only when the test says so."""

    def __init__(self, store: Path, reload_interval_s: float = 3600, wish: EngineWish = ANY) -> None:
        self.store = store
        self.loader = Loader()
        self.fatal: list[FlowersError] = []
        self.live_model = LiveModel(
            store, "flowers", wish=wish, load=self.loader, health=Health(),
            max_batch_size=4, reload_interval_s=reload_interval_s, on_fatal=self.fatal.append,
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


async def test_an_empty_store_names_the_folder_it_watches(watch: Watch) -> None:
    assert await watch.look() is None
    assert not watch.live_model.health.is_started
    [reason] = watch.live_model.health.reasons
    assert "model_store/flowers" in reason
    assert "flowers train" in reason
    with pytest.raises(NotReady, match="model_store/flowers"):
        watch.live_model.require()
    assert watch.live_model.min_queue_size() == 1


async def test_the_first_version_makes_it_ready_once_warm(watch: Watch) -> None:
    await watch.look()
    publish_example(watch.store)
    assert await watch.look() == 1
    assert watch.loader.engines[1].warmed_up_to == 4
    assert watch.live_model.min_queue_size() == watch.loader.engines[1].min_queue_size > 1
    assert watch.live_model.health.is_started
    assert watch.live_model.health.is_ready


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere threads have no priority of their own")
async def test_later_versions_are_loaded_behind_the_traffic(watch: Watch) -> None:
    def niceness() -> int:
        return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())

    seen: list[int] = []
    watch.loader.on_load = lambda _: seen.append(niceness())
    for _ in range(2):
        publish_example(watch.store)
        await watch.look()
    assert seen == [niceness(), min(niceness() + 15, 19)]


async def test_a_failed_warm_up_means_not_ready(watch: Watch) -> None:
    publish_example(watch.store)
    engine = watch.loader.engines[1] = FakeEngine()
    engine.warm_up_error = EngineFailed("the warm-up image got no probabilities")
    assert await watch.look() is None
    assert watch.live_model.health.reasons == ("Version 1 was refused. the warm-up image got no probabilities",)
    assert engine.closed.is_set()


async def test_a_corrupt_version_is_never_loaded(watch: Watch) -> None:
    publish_example(watch.store)
    spoil(watch.store, 1)
    assert await watch.look() is None
    assert watch.loader.loads == []
    assert "saved_model.pb was changed" in watch.live_model.health.reasons[0]


async def test_a_replaced_engine_is_closed_after_its_last_use(
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


async def test_a_bad_version_is_refused_once(watch: Watch) -> None:
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
    assert "saved_model.pb was changed" in watch.live_model.watch.refused[2]
    assert watch.live_model.health.is_ready


async def test_a_refused_version_is_retried_when_files_change(watch: Watch) -> None:
    publish_example(watch.store)
    spoil(watch.store, 1)
    await watch.look()
    (watch.store / "flowers/1/saved_model.pb").write_bytes(b"no network")  # as it was published
    assert await watch.look() == 1
    assert watch.live_model.watch.refused == {}


async def test_a_bad_newest_version_leaves_the_one_before(watch: Watch) -> None:
    publish_example(watch.store)
    publish_example(watch.store)
    spoil(watch.store, 2)
    assert await watch.look() == 1


@pytest.mark.skipif(os.name == "nt", reason="no folder can be as deep as that")
async def test_a_version_that_cannot_be_listed_spoils_only_itself(watch: Watch) -> None:
    """Its path is too long, for any user. Without the right to look into a folder it is the same."""
    for _ in range(2):
        publish_example(watch.store)
    with ExitStack() as folders:
        parent, name = os.open(watch.store / "flowers" / "2", os.O_RDONLY), "d" * 250
        for _ in range(20):
            folders.callback(os.close, parent)
            os.mkdir(name, dir_fd=parent)
            parent = os.open(name, os.O_RDONLY, dir_fd=parent)
        folders.callback(os.close, parent)
    for _ in range(2):
        assert await watch.look() == 1
    assert "cannot be read (File name too long)" in watch.live_model.watch.refused[2]


async def test_the_live_version_outlives_its_files(watch: Watch) -> None:
    publish_example(watch.store)
    await watch.look()
    spoil(watch.store, 1)
    assert await watch.look() == 1
    remove_version(watch.store, "flowers", 1, force=True)
    assert await watch.look() == 1
    assert watch.live_model.health.is_ready


async def test_a_pin_leads_back_and_unpinning_forward(watch: Watch) -> None:
    publish_example(watch.store)
    publish_example(watch.store)
    assert await watch.look() == 2
    pin_version(watch.store, "flowers", 1)
    assert await watch.look() == 1
    assert await watch.look() == 1
    unpin(watch.store, "flowers")
    assert await watch.look() == 2
    assert watch.loader.loads == [2, 1, 2]


async def test_an_unchanged_store_loads_nothing_twice(watch: Watch) -> None:
    publish_example(watch.store)
    for _ in range(3):
        await watch.look()
    assert watch.loader.loads == [1]


async def test_a_look_reads_no_older_versions(watch: Watch, monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(3):
        publish_example(watch.store)
    pin_version(watch.store, "flowers", 2)
    assert await watch.look() == 2
    unpin(watch.store, "flowers")
    spoil(watch.store, 3)
    seen: set[str] = set()

    def note(path: Path) -> FileStamp:
        seen.add(path.relative_to(watch.store / "flowers").parts[0])
        return stamp_file(path)

    monkeypatch.setattr("service.store.watch.stamp_file", note)
    assert await watch.look() == 2
    assert seen == {"3", "2"}


async def test_classes_that_do_not_fit_the_network_are_refused(watch: Watch) -> None:
    publish_example(watch.store)
    watch.loader.engines[1] = FakeEngine(num_classes=7)
    assert await watch.look() is None
    assert "7 classes" in watch.live_model.watch.refused[1]


async def test_squares_that_do_not_fit_the_network_are_refused(watch: Watch) -> None:
    publish_example(watch.store)
    watch.loader.engines[1] = FakeEngine(image_size=96)
    assert await watch.look() is None
    assert "96 pixels" in watch.live_model.watch.refused[1]


async def test_a_runtime_s_message_stays_in_the_log(watch: Watch) -> None:
    publish_example(watch.store)
    engine = watch.loader.engines[1] = FakeEngine()
    engine.warm_up_error = RuntimeError("cuda says: /opt/lib/secret.so")
    with capture_logs() as events:
        await watch.look()
    assert "secret" not in watch.live_model.watch.refused[1]
    assert "secret" in events[-1]["reason"]


async def test_where_the_store_lies_stays_in_the_log(watch: Watch) -> None:
    publish_example(watch.store)
    engine = watch.loader.engines[1] = FakeEngine()
    engine.warm_up_error = EngineFailed(f"no network at {watch.store}/flowers/1/saved_model.pb")
    with capture_logs() as events:
        await watch.look()
    assert watch.live_model.watch.refused[1] == "no network at flowers/1/saved_model.pb"
    assert str(watch.store) in events[-1]["reason"]


async def test_a_failing_disk_is_retried_and_logged_once(watch: Watch) -> None:
    publish_example(watch.store)
    engine = watch.loader.engines[1] = FakeEngine()
    engine.warm_up_error = OSError("input/output error")
    with capture_logs() as events:
        await watch.look()
        await watch.look()
        engine.warm_up_error = None
        assert await watch.look() == 1
    assert [event["event"] for event in events] == ["version refused", "model loaded"]


def no_memory(text: str) -> InvalidVersion:
    """As an engine says that it could not load a network."""
    error = InvalidVersion("version 1 has no network that can be loaded here")
    error.__cause__ = RuntimeError(text)
    return error


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        no_memory("Exception during initialization: std::bad_alloc"),
        no_memory("ResourceExhaustedError: OOM when allocating tensor"),
        RuntimeError("can't start new thread"),
        ChangedVersion("saved_model.pb of version 1 was changed while the version was loaded"),
    ],
)
async def test_a_version_is_tried_again_after_want_of_memory(watch: Watch, error: Exception) -> None:
    publish_example(watch.store)
    engine = watch.loader.engines[1] = FakeEngine()
    engine.warm_up_error = error
    assert await watch.look() is None
    engine.warm_up_error = None
    assert await watch.look() == 1
    assert watch.live_model.watch.refused == {}


async def test_a_version_swapped_while_it_loads_is_refused(watch: Watch) -> None:
    publish_example(watch.store)
    await watch.look()
    publish_example(watch.store)

    def swap_and_read(verified: VerifiedVersion) -> None:
        (verified.folder / "saved_model.pb").write_bytes(b"an attack!")
        verified.read("saved_model.pb")

    watch.loader.on_load = swap_and_read
    assert await watch.look() == 1
    assert "saved_model.pb of version 2 was changed while" in watch.live_model.watch.refused[2]
    assert await watch.look() == 1
    assert "saved_model.pb was changed" in watch.live_model.watch.refused[2]


async def test_the_live_card_is_the_verified_one(watch: Watch) -> None:
    publish_example(watch.store)

    def change(verified: VerifiedVersion) -> None:
        (verified.folder / METADATA_FILE).write_text(example_metadata(temperature=9.0).model_dump_json())

    watch.loader.on_load = change
    assert await watch.look() == 1
    assert watch.live_model.require().metadata == example_metadata()


async def test_a_pipe_as_pin_does_not_end_the_watch(watch: Watch) -> None:
    publish_example(watch.store)
    pin = watch.store / "flowers" / PINNED_FILE
    os.mkfifo(pin)
    assert await watch.look() is None
    assert "PINNED of model flowers holds no version number" in watch.live_model.health.reasons[0]
    pin.unlink()
    assert await watch.look() == 1


async def test_a_pipe_in_a_version_is_refused_once(watch: Watch) -> None:
    publish_example(watch.store)
    publish_example(watch.store)
    metadata = watch.store / "flowers/2" / METADATA_FILE
    metadata.unlink()
    os.mkfifo(metadata)
    with capture_logs() as events:
        assert [await watch.look(), await watch.look()] == [1, 1]
    assert [event["event"] for event in events] == ["version refused", "model loaded"]


async def test_a_link_that_leads_nowhere_spoils_only_its_version(watch: Watch) -> None:
    publish_example(watch.store)
    publish_example(watch.store)
    (watch.store / "flowers/2/nowhere").symlink_to("missing")
    assert await watch.look() == 1


async def test_the_store_is_listed_before_anything_is_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The search for a GPU may take long, too."""
    publish_example(tmp_path)
    asked, may_go_on = threading.Event(), threading.Event()

    def check(_: EngineWish) -> None:
        asked.set()
        may_go_on.wait(60)

    monkeypatch.setattr("service.inference.live_model.check_device", check)
    live_model = Watch(tmp_path).live_model
    live_model.start()
    assert await asyncio.to_thread(asked.wait, 60)
    snapshot = live_model.snapshot
    may_go_on.set()
    await live_model.stop()
    assert snapshot is not None
    assert [version.version for version in snapshot["flowers"].versions] == [1]


async def test_an_unreadable_store_keeps_the_last_snapshot(watch: Watch, monkeypatch: pytest.MonkeyPatch) -> None:
    publish_example(watch.store)
    await watch.look()
    before = watch.live_model.snapshot
    monkeypatch.setattr(os, "scandir", Mock(side_effect=PermissionError(13, "Permission denied")))
    assert await watch.look() == 1
    assert watch.live_model.snapshot is before is not None


async def test_a_device_that_is_not_there_is_fatal(watch: Watch) -> None:
    publish_example(watch.store)
    engine = watch.loader.engines[1] = FakeEngine()
    engine.warm_up_error = DeviceUnavailable("no GPU that can be used")
    await watch.look()
    assert [str(error) for error in watch.fatal] == ["no GPU that can be used"]


async def test_a_missing_device_is_fatal_without_versions_too(tmp_path: Path) -> None:
    watch = Watch(tmp_path, wish=EngineWish("savedmodel", precision="int8"))
    watch.live_model.start()
    async with asyncio.timeout(60):
        while not watch.fatal:
            await asyncio.sleep(0)
    await watch.live_model.stop()
    assert "--precision int8 is for onnxruntime" in str(watch.fatal[0])


async def test_the_watch_looks_by_itself_and_survives_surprises(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked = asyncio.Event()
    looks = 0

    async def look() -> None:
        nonlocal looks
        looks += 1
        if looks == 1:
            raise ZeroDivisionError
        looked.set()

    watch = Watch(tmp_path, reload_interval_s=0.001)
    monkeypatch.setattr(watch.live_model, "look", look)
    with capture_logs() as events:
        watch.live_model.start()
        await looked.wait()
        await watch.live_model.stop()
    assert events[0]["event"] == "store scan failed"


async def test_a_stop_does_not_wait_for_a_load(watch: Watch) -> None:
    publish_example(watch.store)
    watch.loader.may_load.clear()
    watch.live_model.start()
    while not watch.loader.loads:
        await asyncio.sleep(0)
    await watch.live_model.stop()
    assert watch.live_model.current is None
    watch.loader.may_load.set()


async def test_a_new_version_s_device_error_keeps_the_old(watch: Watch) -> None:
    publish_example(watch.store)
    await watch.look()
    publish_example(watch.store)
    engine = watch.loader.engines[2] = FakeEngine()
    engine.warm_up_error = DeviceUnavailable("no GPU that can be used")
    assert await watch.look() == 1
    assert watch.fatal == []
    assert watch.live_model.health.is_ready
    assert watch.live_model.watch.refused == {2: "no GPU that can be used"}


async def test_one_changed_byte_gives_a_version_another_try(watch: Watch) -> None:
    publish_example(watch.store)
    network = watch.store / "flowers" / "1" / "saved_model.pb"
    good, times = network.read_bytes(), network.stat()
    network.write_bytes(good[:-1] + b"!")
    assert await watch.look() is None
    network.write_bytes(good)
    os.utime(network, ns=(times.st_atime_ns, times.st_mtime_ns + 1_000_000_000))
    assert await watch.look() == 1


async def test_an_unreadable_store_leaves_a_live_version_ready(watch: Watch) -> None:
    publish_example(watch.store)
    await watch.look()
    pin = watch.store / "flowers" / PINNED_FILE
    pin.write_text("garbage")
    assert await watch.look() == 1
    assert watch.live_model.health.is_ready
    pin.unlink()
    assert await watch.look() == 1
    assert watch.live_model.health.is_ready


async def test_a_stop_closes_the_live_engine(watch: Watch) -> None:
    publish_example(watch.store)
    await watch.look()
    await watch.live_model.stop()
    assert watch.loader.engines[1].closed.is_set()


async def test_a_missing_model_is_logged_once_each_time(watch: Watch) -> None:
    with capture_logs() as events:
        for _ in range(2):
            await watch.look()
            await watch.look()
            publish_example(watch.store)
            await watch.look()
            shutil.rmtree(watch.store / "flowers")
    assert [event["event"] for event in events].count("model missing") == 2


async def test_only_a_surprise_is_logged_with_its_traceback(watch: Watch) -> None:
    errors = (EngineFailed("no probabilities"), ZeroDivisionError("a surprise"))
    for version, error in enumerate(errors, 1):
        publish_example(watch.store)
        watch.loader.engines[version] = FakeEngine()
        watch.loader.engines[version].warm_up_error = error
    with capture_logs() as events:
        await watch.look()
    logged = {event["version"]: event["exc_info"] for event in events if event["event"] == "version refused"}
    assert logged == {1: None, 2: errors[1]}


async def test_the_log_says_whether_a_version_is_pinned(watch: Watch) -> None:
    for _ in range(2):
        publish_example(watch.store)
    with capture_logs() as events:
        await watch.look()
        pin_version(watch.store, "flowers", 1)
        await watch.look()
    loaded = [(event["version"], event["pinned"]) for event in events if event["event"] == "model loaded"]
    assert loaded == [(2, False), (1, True)]
