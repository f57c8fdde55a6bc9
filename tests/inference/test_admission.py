import asyncio
from contextlib import ExitStack

import pytest

from service.errors import Draining, QueueFull
from service.inference.admission import Admission

pytestmark = pytest.mark.anyio


async def test_a_full_queue_refuses_at_the_door_and_again_after_the_upload() -> None:
    admission = Admission(max_queue_size=2, num_computing=lambda: 0)
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
    admission = Admission(max_queue_size=1, num_computing=lambda: num_computing)
    with admission.image():
        num_computing = 1
        with admission.image():
            assert admission.num_waiting == 1


async def test_after_close_new_requests_are_refused_and_accepted_ones_are_awaited() -> None:
    admission = Admission(max_queue_size=1, num_computing=lambda: 0)
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
