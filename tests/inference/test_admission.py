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


def test_a_picture_larger_than_the_budget_is_decoded_alone() -> None:
    with PixelBudget(10).hold(11):
        pass


def waits(admission: Admission, wait_s: float, *, begin_s: float, duration_s: float) -> float:
    """An answer every 10 ms whose image has waited so long; when that ended."""
    now = begin_s
    while now < begin_s + duration_s:
        admission.note_wait(wait_s, now)
        now += 0.01
    return now


def test_a_standing_queue_is_shortened_to_what_is_answered_soon_and_lengthens_again_within_2_s() -> None:
    admission = Admission(max_queue_size=128, max_queue_bytes=1, num_computing=lambda: 0)
    now = waits(admission, 0.4, begin_s=100, duration_s=1.9)
    assert admission.room == 128  # it may still be a burst, or another process that starts
    now = waits(admission, 0.4, begin_s=now, duration_s=1)
    assert admission.room == 64  # all wait for 0.4 s: half as many wait for 0.2 s
    now = waits(admission, 5, begin_s=now, duration_s=4)
    assert admission.room == 32  # never so few that lanes run dry
    waits(admission, 0.01, begin_s=now, duration_s=2)
    assert admission.room == 128


def test_a_burst_is_no_standing_queue() -> None:
    admission = Admission(max_queue_size=128, max_queue_bytes=1, num_computing=lambda: 0)
    now = 100.0
    for _ in range(500):
        now += 0.01
        admission.note_wait(1.0 if int(now * 100) % 20 else 0.001, now)  # each burst's first image waits for nobody
        assert admission.room == 128


def test_a_shortened_queue_refuses_earlier() -> None:
    admission = Admission(max_queue_size=128, max_queue_bytes=1, num_computing=lambda: 0)
    waits(admission, 60, begin_s=100, duration_s=3)
    with ExitStack() as waiting:
        for _ in range(32):
            waiting.enter_context(admission.image())
        with pytest.raises(QueueFull, match="32 images already wait"), admission.request():
            pass


def test_a_queue_that_is_short_anyway_stays_as_it_is() -> None:
    admission = Admission(max_queue_size=2, max_queue_bytes=1, num_computing=lambda: 0)
    waits(admission, 60, begin_s=100, duration_s=3)
    assert admission.room == 2
