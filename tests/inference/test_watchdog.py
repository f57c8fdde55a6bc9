"""Readiness follows the engine: time is passed in, calls are held and failed by the test."""

import asyncio
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from structlog.testing import capture_logs
from support.fakes import FakeEngine, Loader, fake_version, image_of

from service.errors import EngineFailed, FlowersError, NotReady
from service.imaging.pixels import Pixels
from service.inference.batcher import MicroBatcher
from service.inference.health import Health
from service.inference.live_model import LiveModel
from service.inference.watchdog import PROBE_AFTER_S, WEDGED_AFTER_S, Watchdog

pytestmark = pytest.mark.anyio


class Watched:
    """A watchdog over a fake engine that is in use already."""

    def __init__(self, tmp_path: Path) -> None:
        self.engine = FakeEngine()
        self.fatal: list[FlowersError] = []
        self.health = Health()
        self.health.clear("model")
        self.live_model = LiveModel(
            tmp_path, "flowers", load=Loader(), health=self.health, max_batch_size=4, reload_interval_s=3600
        )
        self.live_model.current = fake_version(self.engine)
        self.batcher = MicroBatcher(max_batch_size=4)
        self.watchdog = Watchdog(self.live_model, self.batcher, self.fatal.append)
        self.now = asyncio.get_running_loop().time()

    async def check(self, after_s: float) -> None:
        """Judge as of `after_s` from the beginning, and let a call that can end do so."""
        self.watchdog.check(self.now + after_s)
        await self.settle()

    async def fail_a_batch(self) -> None:
        """One image whose call fails; the next one's does not."""
        self.engine.error = RuntimeError("once")
        with pytest.raises(EngineFailed):
            await self.batcher.submit(image_of(7), fake_version(self.engine))
        self.engine.error = None

    async def settle(self) -> None:
        await asyncio.sleep(0)  # the probe begins
        while self.batcher.num_computing and (self.engine.is_open or not self.batcher.longest_call_s(self.now + 1e6)):
            await asyncio.sleep(0.001)
        await asyncio.sleep(0)


async def test_the_watchdog_asks_an_idle_engine_only(tmp_path: Path) -> None:
    watched = Watched(tmp_path)
    await watched.check(0)
    assert watched.engine.batches == [1]  # nobody had ever asked
    await watched.check(1)
    assert watched.engine.batches == [1]  # the proof is fresh
    await watched.check(PROBE_AFTER_S + 1)
    assert watched.engine.batches == [1, 1]
    assert watched.health.is_ready


async def test_a_hung_call_is_not_ready_until_its_answer(tmp_path: Path) -> None:
    watched = Watched(tmp_path)
    watched.engine.hold()
    answer = asyncio.create_task(watched.batcher.submit(image_of(7), fake_version(watched.engine)))
    await watched.settle()
    await watched.check(WEDGED_AFTER_S - 0.5)
    assert watched.health.is_ready
    await watched.check(5)
    assert not watched.health.is_ready
    assert "not answered" in watched.health.reasons[0]
    assert watched.fatal == []
    watched.engine.release()
    await answer
    await watched.settle()
    await watched.check(6)
    assert watched.health.is_ready


async def test_a_hung_engine_is_found_without_traffic(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tick by tick, as the watch does; calls are timed by a clock that moves along."""
    watched, since_s = Watched(tmp_path), 0.0
    clock = SimpleNamespace(monotonic=lambda: watched.now + since_s, perf_counter=time.perf_counter)
    monkeypatch.setattr("service.inference.batcher.time", clock)
    await watched.check(0)
    watched.engine.hold()
    while since_s < 5 and watched.health.is_ready:
        since_s += 0.25
        await watched.check(since_s)
    assert not watched.health.is_ready
    watched.engine.release()
    await watched.settle()


async def test_an_old_failed_probe_does_not_count(tmp_path: Path) -> None:
    watched = Watched(tmp_path)
    watched.engine.error = RuntimeError("once")
    await watched.check(0)
    watched.engine.error = None
    await watched.batcher.submit(image_of(7), fake_version(watched.engine))
    await watched.check(0.5)
    await watched.fail_a_batch()
    await watched.check(0.75)
    assert watched.health.is_ready


async def test_a_call_hung_for_15_s_ends_the_process(tmp_path: Path) -> None:
    watched = Watched(tmp_path)
    watched.engine.hold()
    await watched.check(0)  # its own call hangs
    await watched.check(WEDGED_AFTER_S + 1)
    await watched.check(WEDGED_AFTER_S + 15)
    assert watched.fatal == []
    await watched.check(WEDGED_AFTER_S + 1 + 15)
    assert "new one in its place" in str(watched.fatal[0])
    watched.engine.release()
    await watched.watchdog.stop()


async def test_two_short_troubles_do_not_end_the_process(tmp_path: Path) -> None:
    watched = Watched(tmp_path)
    for since_s in (0, 20):
        watched.engine.error = RuntimeError("illegal instruction")
        await watched.check(since_s)
        await watched.check(since_s + 1)
        assert not watched.health.is_ready
        watched.engine.error = None
        await watched.check(since_s + 2)
        await watched.check(since_s + 3)
        assert watched.health.is_ready
    assert watched.fatal == []


async def test_lanes_that_never_reach_the_engine_are_not_ready(tmp_path: Path) -> None:
    """They may hang while they decode: no engine call is under way then, and the watchdog's own image waits."""
    watched = Watched(tmp_path)
    await watched.check(0)
    go_on = threading.Event()

    def decode() -> Pixels:
        assert go_on.wait(60)
        return image_of(7)

    stuck = asyncio.create_task(watched.batcher.submit(decode, fake_version(watched.engine)))
    await asyncio.sleep(0)
    watched.watchdog.check(watched.now + PROBE_AFTER_S + 1)  # it asks, and gets no answer
    await asyncio.sleep(0)
    assert watched.health.is_ready, watched.health.reasons
    watched.watchdog.check(watched.now + PROBE_AFTER_S + 1 + WEDGED_AFTER_S)
    assert not watched.health.is_ready
    assert "own image" in watched.health.reasons[0]
    go_on.set()
    await stuck
    await watched.settle()
    await watched.check(PROBE_AFTER_S + 2 + WEDGED_AFTER_S)
    assert watched.health.is_ready


@pytest.mark.parametrize("text", ["illegal instruction", "std::bad_alloc"])
async def test_a_failing_engine_is_not_ready_until_it_answers(tmp_path: Path, text: str) -> None:
    watched = Watched(tmp_path)
    watched.engine.error = RuntimeError(text)
    await watched.check(0)
    await watched.check(1)
    assert not watched.health.is_ready
    await watched.check(2)
    assert not watched.health.is_ready, "it flaps"
    with pytest.raises(NotReady, match="fails on every image"):
        watched.live_model.require()
    watched.engine.error = None
    await watched.check(3)
    await watched.check(4)
    assert watched.health.is_ready
    watched.live_model.require()


async def test_one_failed_batch_alone_does_not_turn_ready_false(tmp_path: Path) -> None:
    watched = Watched(tmp_path)
    await watched.fail_a_batch()
    await watched.check(0.5)
    assert watched.health.is_ready
    await watched.check(1)
    assert watched.health.is_ready
    assert not watched.batcher.is_failing


async def test_without_a_model_there_is_nothing_to_watch(tmp_path: Path) -> None:
    watched = Watched(tmp_path)
    watched.live_model.current = None
    await watched.check(100)
    assert watched.engine.batches == []


async def test_trouble_and_its_end_are_logged_once(tmp_path: Path) -> None:
    watched = Watched(tmp_path)
    with capture_logs() as events:
        watched.engine.error = RuntimeError("illegal instruction")
        for since_s in range(4):
            await watched.check(since_s)
        watched.engine.error = None
        for since_s in range(4, 8):
            await watched.check(since_s)
    named = [event["event"] for event in events if event["event"].startswith("engine")]
    assert named == ["engine in trouble", "engine recovered"]
