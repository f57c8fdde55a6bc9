import asyncio
import gc
import threading
import time
import weakref
from collections.abc import Iterator
from functools import partial
from types import SimpleNamespace
from unittest.mock import Mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.fakes import FakeEngine, fake_version, image_of

from service.engines.engine import Scores
from service.engines.open_version import ServedVersion
from service.errors import DeadlineExceeded, Draining, EngineFailed, InvalidImage, OutOfMemory
from service.imaging.pixels import Pixels
from service.inference.batcher import MicroBatcher, Row

pytestmark = pytest.mark.anyio
LATER = 1e9


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
    assert (scored.probabilities[0], scored.energy, scored.distance) == (np.float32(7 / 512), -7 / 512, 7 / 512)
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


async def test_background_images_wait_for_all_others(engine: FakeEngine) -> None:
    computing: list[int] = []
    batcher, loaded = MicroBatcher(max_batch_size=32, on_computing=computing.append), fake_version(engine)
    calls = [await occupy(engine, batcher, loaded)]
    images = [partial(image_of, value) for value in (2, 3, 4)]
    background = asyncio.create_task(batcher.submit_background(images, loaded, LATER))
    await spin()
    calls += [asyncio.create_task(batcher.submit(image_of(5), loaded)) for _ in range(2)]
    await spin()
    engine.release()
    assert [row.probabilities[0] * 512 for row in await background] == [2, 3, 4]
    await asyncio.gather(*calls)
    assert engine.batches == [1, 2, 3]
    assert max(computing) == 2  # those in the background take no place


async def test_background_images_of_a_gone_caller_are_not_computed(engine: FakeEngine) -> None:
    batcher, loaded = MicroBatcher(max_batch_size=32), fake_version(engine)
    call = await occupy(engine, batcher, loaded)
    background = asyncio.create_task(batcher.submit_background([partial(image_of, 2)], loaded, LATER))
    await spin()
    background.cancel()
    await spin()
    engine.release()
    await call
    assert (await batcher.submit_background([partial(image_of, 3)], loaded, LATER))[0].probabilities[0] * 512 == 3
    assert engine.batches == [1, 1]


async def test_background_images_end_with_the_batcher(engine: FakeEngine) -> None:
    batcher, loaded = MicroBatcher(max_batch_size=32), fake_version(engine)
    await occupy(engine, batcher, loaded)
    background = asyncio.create_task(batcher.submit_background([partial(image_of, 2)] * 2, loaded, LATER))
    await spin()
    batcher.close()
    with pytest.raises(Draining):
        await background
    with pytest.raises(Draining):
        await batcher.submit_background([partial(image_of, 2)], loaded, LATER)


async def test_a_failed_call_fails_all_background_images(engine: FakeEngine) -> None:
    batcher, loaded = MicroBatcher(max_batch_size=32), fake_version(engine)
    engine.error = ValueError("broken")
    with pytest.raises(EngineFailed):
        await batcher.submit_background([partial(image_of, 2)] * 3, loaded, LATER)


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


async def test_each_change_of_the_computing_images_is_told(engine: FakeEngine) -> None:
    told: list[int] = []
    batcher = MicroBatcher(max_batch_size=8, on_computing=told.append)
    loaded = fake_version(engine)
    first = await occupy(engine, batcher, loaded)
    left, *stayed = [asyncio.create_task(batcher.submit(image_of(value), loaded)) for value in range(3)]
    await spin()
    assert told == [1]  # the others wait
    first.cancel()
    await spin()
    assert told == [1, 0]
    left.cancel()  # it waits, so nothing changes
    await spin()
    engine.release()
    await asyncio.gather(*stayed)
    assert told == [1, 0, 2, 0]


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


ROWS, BAD = np.full((1, 5), 0.2, np.float32), np.array([np.nan], np.float32)


@pytest.mark.parametrize(
    "broken",
    [Scores(ROWS * BAD), Scores(ROWS.repeat(2, axis=0)), Scores(ROWS, energy=BAD), Scores(ROWS, distance=BAD)],
)
async def test_an_answer_without_finite_rows_is_a_failure(
    engine: FakeEngine, monkeypatch: pytest.MonkeyPatch, broken: Scores
) -> None:
    monkeypatch.setattr(engine, "run", lambda images: broken)
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


async def test_close_tells_a_batch_before_its_lane(engine: FakeEngine) -> None:
    batcher = MicroBatcher(max_batch_size=1)
    call = asyncio.create_task(batcher.submit(image_of(1), fake_version(engine)))
    await spin(1)  # the batch is formed, and its lane has not heard of it
    batcher.close()
    with pytest.raises(Draining):
        await call
    assert (engine.batches, batcher.is_failing) == ([], False)


async def test_one_batch_at_a_time_is_in_the_lane(engine: FakeEngine) -> None:
    """Also while a new version takes over, whose engine is another."""
    other = FakeEngine()
    batcher = MicroBatcher(max_batch_size=1)
    engine.hold()
    calls = [
        asyncio.create_task(batcher.submit(image_of(1), version))
        for version in (fake_version(engine, 1), fake_version(other, 2))
    ]
    await spin()
    assert (batcher.num_computing, other.batches) == (1, [])
    engine.release()
    await asyncio.gather(*calls)
    assert other.batches == [1]


@settings(deadline=None, max_examples=50)
@given(
    max_batch_size=st.integers(1, 5),
    turns=st.lists(st.tuples(st.integers(0, 3), st.booleans()), min_size=1, max_size=40),
)
def test_row_i_answers_request_i_under_every_interleaving(max_batch_size: int, turns: list[tuple[int, bool]]) -> None:
    """Each turn submits one image after some turns of the loop; some callers leave unanswered."""

    async def play() -> None:
        batcher = MicroBatcher(max_batch_size=max_batch_size)
        engine = FakeEngine()
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
                assert (scored.energy, scored.distance) == (-value / 512, value / 512)
        batcher.close()

    asyncio.run(play())


async def test_a_call_has_an_age_while_it_runs(engine: FakeEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    clock = SimpleNamespace(monotonic=lambda: now, perf_counter=time.perf_counter)
    monkeypatch.setattr("service.inference.batcher.time", clock)
    batcher = MicroBatcher(max_batch_size=1)
    engine.hold()
    call = asyncio.create_task(batcher.submit(image_of(7), fake_version(engine)))
    while not engine.batches:
        await asyncio.sleep(0)
    now += 10
    assert batcher.longest_call_s(now) == 10
    engine.release()
    await call
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
