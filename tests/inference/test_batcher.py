import asyncio
import gc
import os
import threading
import time
import weakref
from collections.abc import Iterator
from types import SimpleNamespace
from unittest.mock import Mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.fakes import FakeEngine, fake_version, image_of

from service.engines.engine import Probabilities
from service.engines.open_version import ServedVersion
from service.errors import DeadlineExceeded, Draining, EngineFailed, InvalidImage, OutOfMemory
from service.imaging.pixels import Pixels
from service.inference.batcher import MicroBatcher, Row
from service.inference.threads import LANES, compute_threads

pytestmark = pytest.mark.anyio


@pytest.fixture
def engine() -> Iterator[FakeEngine]:
    engine = FakeEngine()
    yield engine
    engine.release()


async def spin(turns: int = 5) -> None:
    """Let every task that can go on go on."""
    for _ in range(turns):
        await asyncio.sleep(0)


async def occupy(engine: FakeEngine, batcher: MicroBatcher, loaded: ServedVersion) -> asyncio.Task[Row]:
    """Hold the engine, with an image in its lane."""
    engine.hold()
    call = asyncio.create_task(batcher.submit(image_of(1), loaded))
    await spin()
    return call


async def test_a_lone_image_is_scored_without_waiting_for_company(engine: FakeEngine) -> None:
    batcher = MicroBatcher(max_batch_size=32)
    scored = await batcher.submit(image_of(7), fake_version(engine))
    assert scored.probabilities[0] == np.float32(7 / 512)
    assert engine.batches == [1]


async def test_images_that_wait_share_one_call(engine: FakeEngine) -> None:
    sizes: list[int] = []
    batcher = MicroBatcher(max_batch_size=3, on_batch=sizes.append)
    loaded = fake_version(engine)
    engine.hold()
    calls = [asyncio.create_task(batcher.submit(image_of(value), loaded)) for value in range(6)]
    await spin()
    assert batcher.num_computing == 1
    engine.release()
    await asyncio.gather(*calls)
    assert engine.batches == [1, 3, 2]
    assert sizes == [1, 3, 2]
    assert batcher.num_computing == 0


@pytest.mark.parametrize("lane_cores", [(), (4, 7)])
async def test_each_lane_has_a_thread_and_a_named_core(
    engine: FakeEngine, lane_cores: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = Mock(side_effect=compute_threads)
    monkeypatch.setattr("service.inference.batcher.compute_threads", made)
    batcher = MicroBatcher(max_batch_size=1)
    engine.num_lanes, engine.lane_cores = 2, lane_cores
    for _ in range(2):
        await batcher.submit(image_of(1), fake_version(engine))
    made.assert_called_once_with(2, "lane", LANES, lane_cores)


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="threads cannot be tied to cores here")
async def test_a_lane_keeps_its_core_unless_alone(engine: FakeEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.inference.threads._JUDGED_AFTER_S", float("inf"))
    every = os.sched_getaffinity(0)
    batcher = MicroBatcher(max_batch_size=1)
    engine.lane_cores = (min(every),)
    seen = []

    def make() -> Pixels:
        seen.append(os.sched_getaffinity(0))
        return image_of(1)

    await asyncio.gather(*(batcher.submit(make, fake_version(engine)) for _ in range(16)))
    assert seen[:-1] == [{min(every)}] * 15
    assert seen[-1] == every


async def test_the_engine_says_how_many_calls_run_together(engine: FakeEngine) -> None:
    batcher = MicroBatcher(max_batch_size=1)
    engine.num_lanes = 3
    loaded = fake_version(engine)
    engine.hold()
    calls = [asyncio.create_task(batcher.submit(image_of(value), loaded)) for value in range(5)]
    await spin()
    assert batcher.num_computing == 3
    engine.release()
    await asyncio.gather(*calls)


async def test_a_batch_respects_the_engine_s_maximum(engine: FakeEngine) -> None:
    batcher = MicroBatcher(max_batch_size=8)
    engine.max_batch_size = 3
    loaded = fake_version(engine)
    engine.hold()
    calls = [asyncio.create_task(batcher.submit(image_of(value), loaded)) for value in range(8)]
    await spin()
    engine.release()
    await asyncio.gather(*calls)
    assert engine.batches == [1, 3, 3, 1]


@pytest.mark.parametrize(
    ("num_lanes", "lane_cores", "batches"),
    [(3, (), [4, 2, 1, 1]), (2, (4094, 4095), [6, 2, 1]), (4, (4092, 4093, 4094, 4095), [3, 2, 1, 1])],
)
async def test_a_lane_takes_its_share_of_the_queue(
    engine: FakeEngine, num_lanes: int, lane_cores: tuple[int, ...], batches: list[int]
) -> None:
    """Of three lanes on two cores one takes half of what waits; of two with a core for each, two thirds."""
    batcher = MicroBatcher(max_batch_size=8)
    engine.num_lanes, engine.lane_cores = num_lanes, lane_cores
    loaded = fake_version(engine)
    engine.hold()
    calls = [asyncio.create_task(batcher.submit(image_of(value), loaded)) for value in range(11)]
    await spin()
    assert batcher.num_computing == num_lanes
    engine.release()
    await asyncio.gather(*calls)
    assert sorted(engine.batches) == sorted([1] * num_lanes + batches)


async def test_only_an_image_with_nobody_beside_it_is_alone(engine: FakeEngine) -> None:
    batcher = MicroBatcher(max_batch_size=8)
    engine.num_lanes = 2
    loaded = fake_version(engine)
    engine.hold()
    calls = []
    for num_begun in (1, 2):
        calls.append(asyncio.create_task(batcher.submit(image_of(1), loaded)))
        while len(engine.batches) < num_begun:
            await asyncio.sleep(0.001)
    engine.release()
    await asyncio.gather(*calls)
    assert engine.were_alone == [True, False]


async def test_images_that_come_together_are_not_alone(engine: FakeEngine) -> None:
    batcher = MicroBatcher(max_batch_size=8)
    loaded = fake_version(engine)
    engine.hold()
    calls = [asyncio.create_task(batcher.submit(image_of(value), loaded)) for value in range(3)]
    await spin()
    engine.release()
    await asyncio.gather(*calls)
    assert engine.batches == [1, 2]
    assert not engine.were_alone[1]


async def test_an_image_behind_which_another_waits_is_not_alone(engine: FakeEngine) -> None:
    batcher = MicroBatcher(max_batch_size=8)
    loaded = fake_version(engine)
    go_on = threading.Event()

    def make() -> Pixels:
        assert go_on.wait(60)
        return image_of(1)

    first = asyncio.create_task(batcher.submit(make, loaded))
    await spin()
    second = asyncio.create_task(batcher.submit(image_of(2), loaded))
    await spin()
    go_on.set()
    await asyncio.gather(first, second)
    assert engine.were_alone == [False, True]


async def test_an_image_that_fails_leaves_its_batch_alone(engine: FakeEngine) -> None:
    batcher = MicroBatcher(max_batch_size=8)
    loaded = fake_version(engine)
    made_on: list[str] = []

    def make() -> Pixels:
        made_on.append(threading.current_thread().name.partition("_")[0])
        return image_of(7)

    def fail() -> Pixels:
        raise InvalidImage("it is broken")

    first = await occupy(engine, batcher, loaded)
    broken, whole = (asyncio.create_task(batcher.submit(image, loaded)) for image in (fail, make))
    await spin()
    engine.release()
    with pytest.raises(InvalidImage, match="it is broken"):
        await broken
    assert (await whole).probabilities[0] == np.float32(7 / 512)
    await first
    assert (made_on, engine.batches, batcher.is_failing) == (["lane"], [1, 1], False)


async def test_a_batch_without_computed_images_is_not_counted(engine: FakeEngine) -> None:
    sizes: list[int] = []
    batcher = MicroBatcher(max_batch_size=8, on_batch=sizes.append)

    def fail() -> Pixels:
        raise InvalidImage("it is broken")

    with pytest.raises(InvalidImage):
        await batcher.submit(fail, fake_version(engine))
    await spin()
    assert (sizes, engine.batches) == ([], [])


class Broken:
    """A file that cannot be decoded, such as fills the memory when a hundred errors hold theirs."""

    def __init__(self) -> None:
        self.parts: dict[str, Pixels] = {}

    def __call__(self) -> Pixels:
        try:
            return self.parts["pixels"]
        except KeyError as error:
            raise InvalidImage("it is broken") from error


async def test_an_error_does_not_hold_its_image(engine: FakeEngine) -> None:
    """No collection may be needed: they are rare, and each image has megabytes."""
    batcher = MicroBatcher(max_batch_size=8)
    loaded = fake_version(engine)
    held: list[weakref.ref[Broken]] = []

    async def ask() -> None:
        image = Broken()
        held.append(weakref.ref(image))
        with pytest.raises(InvalidImage):
            await batcher.submit(image, loaded)

    gc.collect()
    gc.disable()
    try:
        await ask()
        await spin()
        assert held[0]() is None
    finally:
        gc.enable()


async def test_a_caller_that_left_a_lane_does_not_count(engine: FakeEngine) -> None:
    batcher = MicroBatcher(max_batch_size=8)
    call = await occupy(engine, batcher, fake_version(engine))
    assert batcher.num_computing == 1
    call.cancel()
    await spin()
    assert batcher.num_computing == 0
    engine.release()
    await batcher.submit(image_of(2), fake_version(engine))  # by then the lane has come free
    assert batcher.num_computing == 0


@pytest.mark.parametrize("where", ["no thread can be had", "no memory for the batch"])
async def test_a_lane_without_a_thread_is_out_of_memory(
    engine: FakeEngine, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    batcher = MicroBatcher(max_batch_size=8)
    with monkeypatch.context() as patched:
        if where == "no thread can be had":
            patched.setattr(threading.Thread, "start", Mock(side_effect=RuntimeError("can't start new thread")))
        else:
            patched.setattr(np, "stack", Mock(side_effect=MemoryError))
        with pytest.raises(OutOfMemory, match="batch of 1"):
            await batcher.submit(image_of(1), fake_version(engine))
        assert batcher.is_failing
    await batcher.submit(image_of(1), fake_version(engine))
    assert not batcher.is_failing


async def test_a_departed_caller_s_image_is_not_made(engine: FakeEngine) -> None:
    """It leaves while the lane makes the image before its own, and again while its own is made."""
    batcher = MicroBatcher(max_batch_size=8)
    loaded = fake_version(engine)
    first = await occupy(engine, batcher, loaded)
    making, go_on = threading.Event(), threading.Event()
    made: list[str] = []

    def make() -> Pixels:
        making.set()
        made.append("the one at hand")
        assert go_on.wait(60)
        return image_of(2)

    def make_too() -> Pixels:
        made.append("the one after it")
        return image_of(2)

    left, left_too = (asyncio.create_task(batcher.submit(image, loaded)) for image in (make, make_too))
    await spin()
    engine.release()
    await asyncio.to_thread(making.wait, 60)
    left.cancel()
    left_too.cancel()
    await spin()
    go_on.set()
    await first
    assert (await batcher.submit(image_of(3), loaded)).probabilities[0] == np.float32(3 / 512)
    assert (made, engine.batches) == (["the one at hand"], [1, 1])


async def test_expired_images_are_not_computed(engine: FakeEngine) -> None:
    batcher = MicroBatcher(max_batch_size=8)
    loaded = fake_version(engine)
    clock = asyncio.get_running_loop().time
    first = await occupy(engine, batcher, loaded)
    expired = asyncio.create_task(batcher.submit(image_of(2), loaded, deadline=clock()))
    patient = asyncio.create_task(batcher.submit(image_of(3), loaded, deadline=clock() + 60))
    await spin()
    engine.release()
    with pytest.raises(DeadlineExceeded):
        await expired
    assert (await patient).probabilities[0] == np.float32(3 / 512)
    await first
    assert engine.batches == [1, 1]


async def test_a_departed_caller_s_image_is_not_computed(engine: FakeEngine) -> None:
    batcher = MicroBatcher(max_batch_size=8)
    loaded = fake_version(engine)
    engine.hold()
    first = asyncio.create_task(batcher.submit(image_of(1), loaded))
    left = asyncio.create_task(batcher.submit(image_of(2), loaded))
    await spin()
    left.cancel()
    await spin()
    stayed = asyncio.create_task(batcher.submit(image_of(3), loaded))
    await spin()
    engine.release()
    await asyncio.gather(first, stayed)
    assert engine.batches == [1, 1]


async def test_an_exception_spoils_only_its_own_batch(engine: FakeEngine) -> None:
    batcher = MicroBatcher(max_batch_size=2)
    loaded = fake_version(engine)
    engine.error = RuntimeError("illegal instruction")
    engine.hold()
    calls = [asyncio.create_task(batcher.submit(image_of(value), loaded)) for value in range(3)]
    await spin()
    engine.release()
    for failure in await asyncio.gather(*calls, return_exceptions=True):
        assert isinstance(failure, EngineFailed)
        assert "illegal instruction" in str(failure)
    engine.error = None
    assert (await batcher.submit(image_of(5), loaded)).probabilities[0] == np.float32(5 / 512)


@pytest.mark.parametrize("broken", [np.full((1, 5), np.nan, np.float32), np.zeros((2, 5), np.float32)])
async def test_an_answer_without_finite_rows_is_a_failure(
    engine: FakeEngine, monkeypatch: pytest.MonkeyPatch, broken: Probabilities
) -> None:
    monkeypatch.setattr(engine, "run", lambda images, is_alone: broken)
    with pytest.raises(EngineFailed):
        await MicroBatcher(max_batch_size=1).submit(image_of(1), fake_version(engine))


async def test_images_of_two_versions_never_share_a_batch(engine: FakeEngine) -> None:
    other = FakeEngine()
    batcher = MicroBatcher(max_batch_size=8)
    old, new = fake_version(engine, 1), fake_version(other, 2)
    engine.hold()
    calls = [asyncio.create_task(batcher.submit(image_of(1), version)) for version in (old, old, new, new, old)]
    await spin()
    engine.release()
    await asyncio.gather(*calls)
    assert (engine.batches, other.batches) == ([1, 1, 1], [2])


async def test_a_retired_engine_is_closed_after_its_last_batch(engine: FakeEngine) -> None:
    batcher = MicroBatcher(max_batch_size=1)
    loaded = fake_version(engine)
    call = await occupy(engine, batcher, loaded)
    call.cancel()  # its caller has left, the lane is still at it
    loaded.retire()
    await spin()
    assert not engine.closed.is_set()
    engine.release()
    assert await asyncio.to_thread(engine.closed.wait, 60)


async def test_close_tells_those_who_wait(engine: FakeEngine) -> None:
    batcher = MicroBatcher(max_batch_size=1)
    loaded = fake_version(engine)
    engine.hold()
    running = asyncio.create_task(batcher.submit(image_of(1), loaded))
    waiting = asyncio.create_task(batcher.submit(image_of(2), loaded))
    await spin()
    batcher.close()
    with pytest.raises(Draining):
        await waiting
    with pytest.raises(Draining):
        await batcher.submit(image_of(3), loaded)
    engine.release()
    await running


@settings(deadline=None, max_examples=50)
@given(
    max_batch_size=st.integers(1, 5),
    lanes=st.integers(1, 3),
    turns=st.lists(st.tuples(st.integers(0, 3), st.booleans()), min_size=1, max_size=40),
)
def test_row_i_answers_request_i_under_every_interleaving(
    max_batch_size: int, lanes: int, turns: list[tuple[int, bool]]
) -> None:
    """Each turn submits one image after some turns of the loop; some callers leave unanswered."""

    async def play() -> None:
        batcher = MicroBatcher(max_batch_size=max_batch_size)
        engine = FakeEngine()
        engine.num_lanes = lanes
        loaded = fake_version(engine)
        calls = []
        for value, (pause, leaves) in enumerate(turns):
            calls.append(asyncio.create_task(batcher.submit(image_of(value), loaded)))
            await spin(pause)
            if leaves:
                calls[value // 2].cancel()
        for value, scored in enumerate(await asyncio.gather(*calls, return_exceptions=True)):
            if not isinstance(scored, asyncio.CancelledError):
                assert not isinstance(scored, BaseException)
                assert scored.probabilities[0] == np.float32(value / 512)
        batcher.close()

    asyncio.run(play())


async def test_the_longest_call_is_the_oldest(engine: FakeEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    clock = SimpleNamespace(monotonic=lambda: now, perf_counter=time.perf_counter)
    monkeypatch.setattr("service.inference.batcher.time", clock)
    batcher, engine.num_lanes = MicroBatcher(max_batch_size=1), 2
    engine.hold()
    calls = []
    for num_calls in (1, 2):
        calls.append(asyncio.create_task(batcher.submit(image_of(7), fake_version(engine))))
        while len(engine.batches) < num_calls:
            await asyncio.sleep(0)
        now += 10
    assert batcher.longest_call_s(now) == 20
    engine.release()
    await asyncio.gather(*calls)
    assert batcher.longest_call_s(now) == 0


async def test_a_broken_image_is_no_failure_of_the_engine(engine: FakeEngine) -> None:
    batcher = MicroBatcher(max_batch_size=1)
    with pytest.raises(InvalidImage):
        await batcher.submit(Mock(side_effect=InvalidImage("broken")), fake_version(engine))
    assert not batcher.is_failing


async def test_a_closed_batcher_s_threads_end(engine: FakeEngine) -> None:
    others = set(threading.enumerate())
    batcher = MicroBatcher(max_batch_size=1)
    await batcher.submit(image_of(7), fake_version(engine))
    [lane] = set(threading.enumerate()) - others
    batcher.close()
    lane.join(20)
    assert not lane.is_alive()
