import asyncio

import pytest
from support.tickets import crowded

from service.inference.admission import Admission
from service.inference.share import Share

pytestmark = pytest.mark.anyio


async def test_a_share_waits_for_images_that_it_holds() -> None:
    admission = Admission(max_queue_size=4, max_queue_bytes=100, min_queue_size=lambda: 1)
    may_end = [asyncio.Event(), asyncio.Event()]
    with admission.request() as ticket:
        share = Share(ticket, admission, timeout_s=60)
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
        share = Share(ticket, admission, timeout_s=60)
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


async def test_a_batch_holds_fewer_images_that_take_long() -> None:
    admission, clock = crowded(128)
    with admission.request() as ticket:
        share = Share(ticket, admission, timeout_s=10)

        async def take(num_images: int) -> list[asyncio.Event]:
            ends = []
            for _ in range(num_images):
                async with asyncio.timeout(5):
                    await share.wait_for_image()
                ends.append(asyncio.Event())
                share.hold(0, asyncio.create_task(ends[-1].wait()))
            return ends

        async def is_full() -> bool:
            waiting = asyncio.create_task(share.wait_for_image())
            await asyncio.sleep(0)
            waiting.cancel()
            return not waiting.done()

        ends = await take(4)  # its pace is unknown
        assert await is_full()
        clock.now += 1
        for event in ends:
            event.set()
        await asyncio.sleep(0.01)
        await take(10)  # at four a second, they take a quarter of the timeout
        assert await is_full()
