"""Cancellation of a request by its client."""

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

from starlette.requests import ClientDisconnect, Request

T = TypeVar("T")


async def unless_hung_up(request: Request, work: Awaitable[T]) -> T:
    """Return the result of `work`. Cancel it when the client hangs up. The body must have been read.

    Raises:
        ClientDisconnect: The client has hung up.
    """
    working = asyncio.current_task()
    assert working is not None
    is_gone = False

    async def watch() -> None:
        nonlocal is_gone
        while (await request.receive())["type"] != "http.disconnect":
            pass
        is_gone = True
        working.cancel()

    watching = asyncio.create_task(watch())
    try:
        return await work
    except asyncio.CancelledError:
        if is_gone and not working.uncancel():
            raise ClientDisconnect from None
        raise
    finally:
        watching.cancel()
