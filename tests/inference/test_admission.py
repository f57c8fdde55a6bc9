import asyncio
from contextlib import ExitStack, suppress

import pytest

from service.errors import Draining, QueueFull
from service.inference.admission import Admission
from service.inference.usage import Alone, OwnUsage

pytestmark = pytest.mark.anyio


async def test_a_full_queue_refuses_before_and_after_the_upload() -> None:
    admission = Admission(max_queue_size=2, max_queue_bytes=10**9, min_queue_size=lambda: 1)
    with ExitStack() as waiting, ExitStack() as uploading:
        uploading.enter_context(admission.request())
        for _ in range(2):
            waiting.enter_context(admission.image())
        with pytest.raises(QueueFull, match="2 images already wait"), admission.request():
            pass
        with pytest.raises(QueueFull), admission.image():
            pass
    with admission.request(), admission.image():
        assert admission.num_waiting == 1


def test_a_service_is_busy_just_after_its_last_image() -> None:
    admission, clock = crowded(128)
    clock.now += 0.2
    assert not admission.is_busy()
    with admission.image():
        clock.now += 1
        assert admission.is_busy()
    clock.now += 0.09
    assert admission.is_busy()
    clock.now += 0.02
    assert not admission.is_busy()


async def test_images_in_a_lane_do_not_wait() -> None:
    shared = Alone()
    admission = Admission(max_queue_size=1, max_queue_bytes=10**9, min_queue_size=lambda: 1, shared=shared)
    with admission.image():
        shared.own.num_computing = 1
        with admission.image():
            assert admission.num_waiting == 1


async def test_images_of_all_workers_share_one_queue() -> None:
    neighbour = OwnUsage(num_images=5, num_computing=3)
    shared = Alone(others=(neighbour,))
    admission = Admission(max_queue_size=3, max_queue_bytes=10**9, min_queue_size=lambda: 1, shared=shared)
    with admission.image():
        with pytest.raises(QueueFull, match="3 images already wait"), admission.request():
            pass
        with pytest.raises(QueueFull, match="3 images already wait"):
            admission.expect()
        neighbour.num_computing = 4
        with admission.request(), admission.image():
            assert admission.num_waiting == 2


async def test_two_workers_never_take_the_last_place_together() -> None:
    """The other worker takes it between this worker's check and its own count."""
    neighbour = OwnUsage()

    class Racing(OwnUsage):
        def __setattr__(self, name: str, value: int) -> None:
            if name == "num_images" and value == 1:
                neighbour.num_images = 1
            super().__setattr__(name, value)

    shared = Alone(Racing(), others=(neighbour,))
    admission = Admission(max_queue_size=1, max_queue_bytes=10**9, min_queue_size=lambda: 1, shared=shared)
    with pytest.raises(QueueFull), admission.image():
        pass
    assert admission.num_images == 0


async def test_bytes_of_all_workers_share_one_limit() -> None:
    shared = Alone(others=(OwnUsage(num_bytes=60), OwnUsage(num_bytes=20)))
    admission = Admission(max_queue_size=9, max_queue_bytes=100, min_queue_size=lambda: 1, shared=shared)
    with admission.request() as ticket:
        ticket.add_bytes(20)
        with pytest.raises(QueueFull, match="100 bytes of images already wait"):
            ticket.add_bytes(1)
        assert admission.num_bytes == 20


async def test_after_close_accepted_requests_are_awaited() -> None:
    admission = Admission(max_queue_size=1, max_queue_bytes=10**9, min_queue_size=lambda: 1)
    with admission.request():
        admission.close()
        with pytest.raises(Draining), admission.request():
            pass
        with admission.image():  # its upload ends after the close: it was accepted
            pass
        idle = asyncio.create_task(admission.wait_idle())
        await asyncio.sleep(0)
        assert not idle.done()
    await idle
    assert admission.num_requests == 0


async def test_the_bytes_of_all_bodies_are_bounded() -> None:
    admission = Admission(max_queue_size=9, max_queue_bytes=100, min_queue_size=lambda: 1)
    with admission.request() as ticket:
        ticket.add_bytes(60)
        with admission.request() as another:
            another.add_bytes(30)
            with pytest.raises(QueueFull, match="90 bytes of images already wait"):
                another.add_bytes(11)
        assert admission.num_bytes == 60
        ticket.add_bytes(40)
    assert admission.num_bytes == 0


@pytest.mark.anyio
async def test_giving_up_ends_every_request_with_draining() -> None:
    admission = Admission(max_queue_size=9, max_queue_bytes=1, min_queue_size=lambda: 1)

    async def ask() -> None:
        with admission.request(), admission.image():
            await asyncio.Event().wait()

    async def ask_and_go_on() -> str:
        with admission.request():
            pass
        await answered.wait()
        return "answered"

    answered = asyncio.Event()
    long_answered = asyncio.create_task(ask_and_go_on())
    hung_up, given_up = (asyncio.create_task(ask()) for _ in range(2))
    await asyncio.sleep(0)
    hung_up.cancel()
    with pytest.raises(asyncio.CancelledError):
        await hung_up
    assert admission.num_images == 1
    admission.give_up()
    with pytest.raises(Draining, match="before the answer was there"):
        await given_up
    assert (admission.num_requests, admission.num_images) == (0, 0)
    answered.set()
    assert await long_answered == "answered"


class Clock:
    """Stands still until it is moved."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def crowded(max_queue_size: int, min_queue_size: int = 4) -> tuple[Admission, Clock]:
    clock = Clock()
    admission = Admission(
        max_queue_size=max_queue_size,
        max_queue_bytes=1,
        min_queue_size=lambda: min_queue_size,
        clock=clock,
    )
    return admission, clock


def flood(
    admission: Admission, clock: Clock, *, duration_s: float, empty_share: float = 0, every_s: float = 0.01
) -> None:
    """As many images as may and one more come at a time, and for this share of the time there is none."""
    for _ in range(round(duration_s / every_s)):
        with ExitStack() as waiting:
            for _ in range(admission.max_waiting):
                waiting.enter_context(admission.image())
            with suppress(QueueFull), admission.image():
                pass
            clock.now += every_s * (1 - empty_share)
        clock.now += every_s * empty_share


def test_a_standing_queue_is_shortened() -> None:
    admission, clock = crowded(128)
    flood(admission, clock, duration_s=0.4)
    assert admission.max_waiting == 128  # so soon nobody can tell
    flood(admission, clock, duration_s=0.2)
    assert admission.max_waiting == 64
    flood(admission, clock, duration_s=4)
    assert admission.max_waiting == 4


@pytest.mark.parametrize(("max_queue_size", "min_queue_size", "room"), [(128, 24, 24), (128, 200, 128), (2, 1, 1)])
def test_as_many_may_always_wait_as_the_engine_wants(max_queue_size: int, min_queue_size: int, room: int) -> None:
    admission, clock = crowded(max_queue_size, min_queue_size)
    flood(admission, clock, duration_s=5)
    assert admission.max_waiting == room
    with ExitStack() as waiting:
        for _ in range(room):
            waiting.enter_context(admission.image())
        with pytest.raises(QueueFull, match=f"{room} images already wait"):
            admission.expect()


def test_a_queue_recovers_two_seconds_after_its_last_refusal() -> None:
    admission, clock = crowded(128)
    flood(admission, clock, duration_s=5)
    with ExitStack() as waiting:
        for _ in range(4):
            waiting.enter_context(admission.image())
        clock.now += 1.9
        with pytest.raises(QueueFull, match="4 images already wait"):
            admission.expect()
        clock.now += 2.1
        for _ in range(128 - 4):
            waiting.enter_context(admission.image())
        with pytest.raises(QueueFull, match="128 images already wait"):
            admission.expect()


def test_a_queue_that_runs_dry_is_lengthened() -> None:
    """As with arrivals at random about as fast as they are answered."""
    admission, clock = crowded(128)
    flood(admission, clock, duration_s=5)
    flood(admission, clock, duration_s=1.1, empty_share=0.1)
    assert admission.max_waiting == 16
    flood(admission, clock, duration_s=1, empty_share=0.02)
    room = admission.max_waiting
    flood(admission, clock, duration_s=3, empty_share=0.02)
    assert admission.max_waiting == room < 128  # hardly ever dry
    flood(admission, clock, duration_s=3, empty_share=0.1)
    assert admission.max_waiting == 128


def test_a_queue_without_refusals_keeps_its_length() -> None:
    """As many connections as fit, asking without a pause on a slow machine, are no overload."""
    admission, clock = crowded(128)
    with ExitStack() as waiting:
        for _ in range(127):
            waiting.enter_context(admission.image())
        for _ in range(1000):
            clock.now += 0.01
            with admission.image():
                pass
    assert admission.max_waiting == 128


def test_a_burst_is_no_standing_queue() -> None:
    admission, clock = crowded(128)
    flood(admission, clock, duration_s=10, empty_share=0.3, every_s=1)
    assert admission.max_waiting == 128


async def test_expected_images_count_until_the_next_turn() -> None:
    admission, _ = crowded(2)
    for _ in range(2):
        admission.expect()
    with pytest.raises(QueueFull):
        admission.expect()
    with admission.image(), admission.image():  # they come, and do not count twice
        await asyncio.sleep(0)
    admission.expect()


def test_a_batch_may_hold_half_of_the_moment() -> None:
    admission, clock = crowded(128)
    assert admission.half_of_images() == 64
    flood(admission, clock, duration_s=5)
    assert (admission.max_waiting, admission.half_of_images()) == (4, 2)
    clock.now += 2.1
    assert admission.half_of_images() == 64  # two seconds after the last refusal
    assert crowded(1)[0].half_of_images() == 1


async def test_a_share_waits_for_images_that_it_holds() -> None:
    admission = Admission(max_queue_size=4, max_queue_bytes=100, min_queue_size=lambda: 1)
    may_end = [asyncio.Event(), asyncio.Event()]
    with admission.request() as ticket:
        share = ticket.share()
        for event in may_end:
            await share.wait_for_image()
            share.hold(0, asyncio.create_task(event.wait()))
        waiting = asyncio.create_task(share.wait_for_image())
        for _ in range(5):
            await asyncio.sleep(0)
        assert not waiting.done()
        may_end[1].set()
        await waiting


async def test_a_share_waits_for_bytes_that_it_holds() -> None:
    admission = Admission(max_queue_size=9, max_queue_bytes=100, min_queue_size=lambda: 1)
    may_end = asyncio.Event()
    with admission.request() as ticket:
        share = ticket.share()
        assert await share.wait_for_bytes(200) == 50
        ticket.add_bytes(60)
        assert await share.wait_for_bytes(200) == 40  # it holds no image: all of the queue is free for one
        share.hold(60, asyncio.create_task(may_end.wait()))
        waiting = asyncio.create_task(share.wait_for_bytes(1))
        for _ in range(5):
            await asyncio.sleep(0)
        assert not waiting.done()
        may_end.set()
        assert await waiting == 1
        assert ticket.num_bytes == admission.num_bytes == 0
        assert await share.wait_for_bytes(200) == 50
