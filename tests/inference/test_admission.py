import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest

from service.errors import Draining, QueueFull
from service.inference.admission import Admission, PixelBudget

pytestmark = pytest.mark.anyio


async def test_a_full_queue_refuses_at_the_door_and_again_after_the_upload() -> None:
    admission = Admission(max_queue_size=2, max_queue_bytes=10**9, num_computing=lambda: 0)
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


async def test_images_in_a_lane_do_not_wait() -> None:
    num_computing = 0
    admission = Admission(max_queue_size=1, max_queue_bytes=10**9, num_computing=lambda: num_computing)
    with admission.image():
        num_computing = 1
        with admission.image():
            assert admission.num_waiting == 1


async def test_after_close_new_requests_are_refused_and_accepted_ones_are_awaited() -> None:
    admission = Admission(max_queue_size=1, max_queue_bytes=10**9, num_computing=lambda: 0)
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


async def test_the_bytes_of_all_bodies_together_are_bounded_and_given_back() -> None:
    admission = Admission(max_queue_size=9, max_queue_bytes=100, num_computing=lambda: 0)
    with admission.request() as hold:
        hold(60)
        with admission.request() as hold_more:
            hold_more(30)
            with pytest.raises(QueueFull, match="90 bytes of images already wait"):
                hold_more(11)
        assert admission.num_bytes == 60
        hold(40)
    assert admission.num_bytes == 0


def test_pixels_being_decoded_at_the_same_time_are_bounded_and_nobody_is_passed_for_ever() -> None:
    """Two of 40 fit in 100; the 70 waits for both to go, and the 10 behind it waits, though there would be room."""
    budget = PixelBudget(100)
    order: list[int] = []
    leave = {number: threading.Event() for number in (40, 41, 70, 10)}

    def decode(pixels: int) -> None:
        with budget.hold(pixels):
            order.append(pixels)
            assert leave[pixels].wait(60)

    with ThreadPoolExecutor(4) as threads:
        try:
            for pixels in (40, 41):
                threads.submit(decode, pixels)
            while len(order) < 2:
                pass
            order.sort()
            threads.submit(decode, 70)
            while not budget._turn.locked():
                pass
            threads.submit(decode, 10)
            leave[40].set()
            assert order == [40, 41]
            leave[41].set()
            while len(order) < 4:
                pass
            assert order == [40, 41, 70, 10]
        finally:
            for event in leave.values():
                event.set()


@pytest.mark.anyio
async def test_to_give_up_is_to_end_every_request_and_no_other_cancellation_is_mistaken_for_it() -> None:
    admission = Admission(max_queue_size=9, max_queue_bytes=1, num_computing=lambda: 0)

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


def test_a_picture_larger_than_the_budget_is_decoded_alone() -> None:
    with PixelBudget(10).hold(11):
        pass


class Clock:
    """Stands still until it is moved."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def crowded(max_queue_size: int, num_cores: int = 2) -> tuple[Admission, Clock]:
    clock = Clock()
    admission = Admission(
        max_queue_size=max_queue_size, max_queue_bytes=1, num_computing=lambda: 0, num_cores=num_cores, clock=clock
    )
    return admission, clock


def refuse(admission: Admission) -> None:
    with ExitStack() as waiting:
        for _ in range(admission.room):
            waiting.enter_context(admission.image())
        with pytest.raises(QueueFull, match=f"{admission.room} images already wait"):
            admission.check_room()


def waits(admission: Admission, clock: Clock, wait_s: float, *, duration_s: float, is_full: bool = True) -> None:
    """An answer every 10 ms whose image has waited so long, and a refusal."""
    end = clock.now + duration_s
    while clock.now < end:
        if is_full:
            refuse(admission)
        admission.note_wait(wait_s)
        clock.now += 0.01


def test_a_standing_queue_is_shortened_to_what_is_answered_soon() -> None:
    admission, clock = crowded(128)
    waits(admission, clock, 0.1, duration_s=1.9)
    assert admission.room == 128  # it may still be a burst, or another process that starts
    waits(admission, clock, 0.1, duration_s=1)
    assert admission.room == 32  # all wait for 0.1 s: a quarter wait for 0.025 s
    waits(admission, clock, 0.025, duration_s=4)
    assert admission.room == 32
    waits(admission, clock, 5, duration_s=4)
    assert admission.room == 16  # never so few that the lanes of two cores run dry


@pytest.mark.parametrize(("num_cores", "room"), [(1, 8), (4, 32), (64, 128)])
def test_the_more_cores_the_more_may_always_wait(num_cores: int, room: int) -> None:
    admission, clock = crowded(128, num_cores)
    waits(admission, clock, 5, duration_s=5)
    assert admission.room == room


def test_its_room_is_back_two_seconds_after_the_last_refusal() -> None:
    admission, clock = crowded(128)
    waits(admission, clock, 5, duration_s=4)
    refuse(admission)
    clock.now += 1.9
    with ExitStack() as waiting:
        for _ in range(16):
            waiting.enter_context(admission.image())
        clock.now += 0.2
        for _ in range(128 - 16):
            waiting.enter_context(admission.image())
        with pytest.raises(QueueFull, match="128 images already wait"):
            admission.check_room()


def test_it_lengthens_again_when_one_hardly_waits_though_bursts_are_refused() -> None:
    admission, clock = crowded(128)
    waits(admission, clock, 5, duration_s=4)
    waits(admission, clock, 0.001, duration_s=2)
    assert admission.room == 128


def test_a_queue_that_has_refused_nobody_stays_however_long_it_takes() -> None:
    """As many connections as fit, asking without a pause on a slow machine, are no overload."""
    admission, clock = crowded(128)
    waits(admission, clock, 5, duration_s=10, is_full=False)
    assert admission.room == 128


def test_a_burst_is_no_standing_queue() -> None:
    admission, clock = crowded(128)
    for number in range(500):
        clock.now += 0.01
        refuse(admission)
        admission.note_wait(1.0 if number % 20 else 0.001)  # each burst's first image waits for nobody
        assert admission.room == 128


def test_a_queue_that_is_short_anyway_stays_as_it_is() -> None:
    admission, clock = crowded(2)
    waits(admission, clock, 60, duration_s=3)
    assert admission.room == 2


async def test_images_of_one_turn_of_the_event_loop_are_counted_before_they_are_there() -> None:
    admission, _ = crowded(2)
    for _ in range(2):
        admission.check_room()
        admission.expect()
    with pytest.raises(QueueFull):
        admission.check_room()
    with admission.image(), admission.image():  # they come, and do not count twice
        await asyncio.sleep(0)
    admission.check_room()
