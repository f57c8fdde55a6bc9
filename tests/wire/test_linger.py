"""A refusal reaches its sender, whatever the sender still writes; a sender that is gone costs nothing."""

import asyncio
from collections.abc import AsyncIterator, MutableMapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from support.drawing import draw_photograph, encode
from support.fakes import Loader
from support.running import Running, running

from service.wire.linger import Linger

pytestmark = pytest.mark.anyio

PHOTO = encode(draw_photograph(0, seed=1))
JPEG = {"Content-Type": "image/jpeg"}
SCOPE: dict[str, Any] = {"type": "http", "method": "POST", "path": "/predict", "raw_path": b"/predict",
                         "query_string": b"", "http_version": "1.1", "scheme": "http", "root_path": "",
                         "client": None, "server": None}  # fmt: skip


@pytest.fixture
async def service(store: Path, loader: Loader) -> AsyncIterator[Running]:
    async with running(store, loader, max_image_bytes=100_000) as service:
        yield service


async def call(
    service: Running, headers: dict[str, str], body: list[bytes], *, hangs_up: bool = False
) -> list[tuple[str, Any]]:
    """What passes between a server and the app, in order; the sender may hang up when all is sent."""
    events: list[tuple[str, Any]] = []

    async def receive() -> dict[str, Any]:
        events.append(("read", None))
        if not body:
            if not hangs_up:
                await asyncio.Event().wait()
            return {"type": "http.disconnect"}
        return {"type": "http.request", "body": body.pop(0), "more_body": bool(body)}

    async def send(message: MutableMapping[str, Any]) -> None:
        is_start = message["type"] == "http.response.start"
        events.append(("start", message) if is_start else ("body", message.get("more_body", False)))

    pairs = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
    scope = {**SCOPE, "headers": pairs}
    await Linger(service.app, is_draining=lambda: service.service.health.is_draining)(scope, receive, send)
    return events


async def test_a_large_body_is_answered_and_then_thrown_away(
    service: Running,
) -> None:
    headers = {**JPEG, "Content-Length": "2000000"}
    events = await call(service, headers, [bytes(1_000_000), bytes(1_000_000)])
    assert [name for name, _ in events] == ["start", "body", "read", "read", "body"]
    start = events[0][1]
    assert start["status"] == 413
    assert (b"connection", b"close") in start["headers"]
    assert [more for name, more in events if name == "body"] == [True, False]


async def test_a_small_rest_of_a_body_costs_no_connection(service: Running) -> None:
    events = await call(service, {**JPEG, "Content-Length": "100001"}, [bytes(100_001)])
    assert [name for name, _ in events] == ["start", "body"]
    assert events[0][1]["status"] == 413
    assert (b"connection", b"close") not in events[0][1]["headers"]


async def test_a_client_that_closes_gets_its_early_answer(service: Running) -> None:
    headers = {**JPEG, "Content-Length": "100001", "Connection": "Close"}
    events = await call(service, headers, [bytes(50_000), bytes(50_001)])
    assert [name for name, _ in events] == ["start", "body", "read", "read", "body"]
    assert [more for name, more in events if name == "body"] == [True, False]


async def test_an_answer_to_a_whole_body_keeps_the_connection(service: Running) -> None:
    headers = {**JPEG, "Content-Length": str(len(PHOTO))}
    events = await call(service, headers, [PHOTO])
    start = next(message for name, message in events if name == "start")
    assert start["status"] == 200
    assert (b"connection", b"close") not in start["headers"]


async def test_a_draining_service_closes_its_connections(service: Running) -> None:
    service.service.health.is_draining = True
    events = await call(service, {**JPEG, "Content-Length": str(len(PHOTO))}, [PHOTO])
    start = next(message for name, message in events if name == "start")
    assert start["status"] == 200  # still taken: the balancer may not have noticed yet
    assert (b"connection", b"close") in start["headers"]


async def test_a_slow_body_closes_its_connection(store: Path, loader: Loader) -> None:
    async with running(store, loader, body_timeout_s=0.01) as service:
        body = [PHOTO[:1000]]

        async def receive() -> dict[str, Any]:
            if not body:
                await asyncio.Event().wait()
            return {"type": "http.request", "body": body.pop(), "more_body": True}

        starts = []

        async def send(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                starts.append(message)
                raise ConnectionError  # the answer need not linger here

        headers = [(b"content-type", b"image/jpeg"), (b"content-length", str(len(PHOTO)).encode())]
        scope = {**SCOPE, "headers": headers}
        with suppress(ConnectionError):
            await Linger(service.app, is_draining=lambda: False)(scope, receive, send)
    assert starts[0]["status"] == 408
    assert (b"connection", b"close") in starts[0]["headers"]


async def test_the_image_of_a_lost_client_is_not_computed(service: Running, loader: Loader) -> None:
    loader.engines[1].hold()
    first = asyncio.create_task(service.client.post("/predict", content=PHOTO, headers=JPEG))
    while not loader.engines[1].batches:
        await asyncio.sleep(0)
    headers = {**JPEG, "Content-Length": str(len(PHOTO))}
    events = await call(service, headers, [PHOTO], hangs_up=True)
    assert events[-2][1]["status"] == 499
    loader.engines[1].release()
    assert (await first).status_code == 200
    assert loader.engines[1].batches == [1]
    assert service.service.admission.num_images == 0
