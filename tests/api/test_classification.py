"""The way of a request with images: many together, and a client that leaves."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi import FastAPI
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from support.drawing import draw_photograph, encode
from support.fakes import FakeEngine, Loader
from support.running import Running, running
from support.versions import publish_example

from service.api.classification import Asked, classify_request, unless_hung_up
from service.inference.admission import Ticket

pytestmark = pytest.mark.anyio

PHOTOS = [encode(draw_photograph(class_index, seed=300)) for class_index in range(5)]


async def many(request: Request) -> Response:
    """A route that classifies five photographs and what the body holds."""
    body = await request.body()

    async def read(ticket: Ticket) -> Asked:
        return Asked([*PHOTOS, *([body] if body else [])], ("1",))

    ranked = await classify_request(request, read)
    return JSONResponse([(one.ranking.scores[0].label, one.ranking.scores[0].probability) for one in ranked])


async def squares(request: Request) -> Response:
    """A route that scores twenty squares of the model's size."""

    async def read(ticket: Ticket) -> Asked:
        return Asked([np.full((224, 224, 3), shade, np.uint8) for shade in range(20)])

    ranked = await classify_request(request, read)
    return JSONResponse([one.classified.version.version for one in ranked])


@pytest.fixture
async def service(store: Path, loader: Loader) -> AsyncIterator[Running]:
    async with running(store, loader) as service:
        add_route(service.app)
        yield service


def add_route(app: FastAPI) -> None:
    app.router.routes.insert(0, Route("/many", many, methods=["POST"]))
    app.router.routes.insert(0, Route("/squares", squares, methods=["POST"]))


async def test_images_are_answered_in_their_order(service: Running) -> None:
    alone = [(await service.client.post("/predict", content=photo)).json() for photo in PHOTOS]
    answer = (await service.client.post("/many")).json()
    assert answer == [[one["label"], one["probability"]] for one in alone]
    lines = (await service.client.get("/metrics")).text.splitlines()
    assert 'flowers_requests_total{method="POST",route="/many",status="200"} 1.0' in lines
    assert sum(float(line.split()[1]) for line in lines if line.startswith("flowers_predictions_total{")) == 10


async def test_images_of_a_request_share_micro_batches(service: Running, loader: Loader) -> None:
    engine: FakeEngine = loader.engines[1]
    engine.hold()
    asking = asyncio.create_task(service.client.post("/squares"))
    while service.service.admission.num_images < 4 or not engine.batches:
        await asyncio.sleep(0.001)
    assert service.service.admission.num_images == 4, "so many of a request wait at a time"
    engine.release()
    assert len((await asking).json()) == 20
    assert len(engine.batches) < 10


async def test_a_request_has_one_version(store: Path, loader: Loader) -> None:
    async with running(store, loader) as service:
        add_route(service.app)
        first = loader.engines[1]
        first.hold()
        asking = asyncio.create_task(service.client.post("/squares"))
        while not first.batches:
            await asyncio.sleep(0.001)
        publish_example(store)
        await service.look()
        first.release()
        assert (await asking).json() == [1] * 20
        assert service.service.predictor.require().version == 2


async def test_one_bad_image_fails_the_whole(service: Running) -> None:
    answer = await service.client.post("/many", content=b"no image")
    assert (answer.status_code, answer.json()["type"]) == (415, "/problems/unsupported-image-format")
    assert (service.service.admission.num_images, service.service.admission.num_bytes) == (0, 0)
    lines = (await service.client.get("/metrics")).text.splitlines()
    assert not [line for line in lines if line.startswith("flowers_predictions_total{")]


async def test_more_images_than_may_wait_are_refused(store: Path, loader: Loader) -> None:
    async with running(store, loader, max_queue_size=2) as service:
        add_route(service.app)
        loader.engines[1].hold()
        asking = asyncio.create_task(service.client.post("/many"))
        answer = await asking
        loader.engines[1].release()
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "1")


async def test_the_client_s_timeout_holds_for_all(service: Running, loader: Loader) -> None:
    loader.engines[1].hold()
    answer = await service.client.post("/many", headers={"X-Request-Timeout-Ms": "100"})
    loader.engines[1].release()
    assert answer.status_code == 504


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
