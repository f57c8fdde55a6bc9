"""Cancellation by the client, and by others while it waits."""

import asyncio
from typing import Any

import pytest
from starlette.requests import ClientDisconnect, Request

from service.api.hang_up import unless_hung_up

pytestmark = pytest.mark.anyio


class Client:
    """A client that stays until `left` is set. It may send a late piece first."""

    def __init__(self) -> None:
        self.left = asyncio.Event()
        self.request = Request({"type": "http", "headers": []}, self._receive)
        self._messages: list[dict[str, Any]] = [{"type": "http.request", "body": b"", "more_body": False}]

    async def _receive(self) -> dict[str, Any]:
        if self._messages:
            return self._messages.pop()
        await self.left.wait()
        return {"type": "http.disconnect"}


async def test_the_result_is_returned_to_a_client_that_stays() -> None:
    async def work() -> int:
        await asyncio.sleep(0)
        return 7

    assert await unless_hung_up(Client().request, work()) == 7


async def test_an_error_of_the_work_is_raised() -> None:
    async def work() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await unless_hung_up(Client().request, work())


async def test_the_work_is_cancelled_when_the_client_leaves() -> None:
    client, was_cancelled = Client(), asyncio.Event()

    async def work() -> None:
        client.left.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            was_cancelled.set()
            raise

    with pytest.raises(ClientDisconnect):
        await unless_hung_up(client.request, work())
    assert was_cancelled.is_set()
    await asyncio.sleep(0)  # the task goes on


async def test_a_cancellation_from_elsewhere_stays_one() -> None:
    client = Client()
    task = asyncio.ensure_future(unless_hung_up(client.request, asyncio.Event().wait()))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
