import asyncio
from contextlib import ExitStack

import pytest

from service.errors import QueueFull
from service.inference.explanations import ExplanationLimit
from service.inference.usage import Alone, OwnUsage

pytestmark = pytest.mark.anyio


def limit_of(max_at_work: int = 1, max_waiting: int = 2, **others: int) -> tuple[ExplanationLimit, Alone]:
    """A limit beside one other worker, whose numbers are `others`."""
    shared = Alone(others=(OwnUsage(**others),))
    return ExplanationLimit(max_at_work=max_at_work, max_waiting=max_waiting, shared=shared), shared


async def spin(turns: int = 5) -> None:
    for _ in range(turns):
        await asyncio.sleep(0)


@pytest.mark.parametrize("num_elsewhere", [0, 2])
async def test_places_are_those_of_all_workers(num_elsewhere: int) -> None:
    limit, shared = limit_of(num_explanations=num_elsewhere)
    with ExitStack() as places:
        for _ in range(3 - num_elsewhere):
            limit.check_not_full()
            places.enter_context(limit.place())
        with pytest.raises(QueueFull, match="3 explanations are already here"):
            limit.check_not_full()
        with pytest.raises(QueueFull, match="3 explanations are already here"), limit.place():
            pass
        assert shared.own.num_explanations == 3 - num_elsewhere
    assert shared.own.num_explanations == 0


async def test_explanations_work_in_order_and_as_allowed() -> None:
    limit, shared = limit_of(max_at_work=2)
    began: list[int] = []
    may_end = [asyncio.Event() for _ in range(4)]

    async def work(number: int) -> None:
        async with limit.turn():
            began.append(number)
            await may_end[number].wait()

    tasks = [asyncio.create_task(work(number)) for number in range(4)]
    await spin()
    assert (began, shared.own.num_explaining) == ([0, 1], 2)
    for number in (1, 0, 2, 3):
        may_end[number].set()
        await tasks[number]
    assert (began, shared.own.num_explaining) == ([0, 1, 2, 3], 0)


async def test_an_explanation_waits_for_another_worker() -> None:
    limit, shared = limit_of(num_explaining=1)
    has_begun = asyncio.Event()

    async def work() -> None:
        async with limit.turn():
            has_begun.set()

    task = asyncio.create_task(work())
    await spin()
    assert not has_begun.is_set()
    assert shared.own.num_explaining == 0
    shared.others[0].num_explaining = 0
    async with asyncio.timeout(60):
        await task
    assert has_begun.is_set()


async def test_a_cancelled_wait_lets_the_next_one_work() -> None:
    limit, shared = limit_of(num_explaining=1)

    async def work() -> str:
        async with limit.turn():
            return "worked"

    gone, next_one = asyncio.create_task(work()), asyncio.create_task(work())
    await spin()
    gone.cancel()
    await spin()
    shared.others[0].num_explaining = 0
    async with asyncio.timeout(60):
        assert await next_one == "worked"
