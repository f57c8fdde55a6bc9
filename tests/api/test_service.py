import asyncio
from pathlib import Path

import pytest
from support.drawing import draw_photograph, encode
from support.fakes import Loader
from support.running import running

pytestmark = pytest.mark.anyio
PHOTO = encode(draw_photograph(0, seed=1))


async def test_a_drain_answers_requests_of_its_delay(
    store: Path, loader: Loader, monkeypatch: pytest.MonkeyPatch
) -> None:
    delay_is_over, turn = asyncio.Event(), asyncio.sleep

    async def sleep(delay_s: float) -> None:
        await (delay_is_over.wait() if delay_s == 5 else turn(delay_s))  # other tasks sleep, too

    async with running(store, loader) as service:
        monkeypatch.setattr("service.api.service.asyncio.sleep", sleep)
        loader.engines[1].hold()
        draining = asyncio.create_task(service.service.drain(delay_s=5, timeout_s=60))
        await turn(0)
        assert (await service.client.get("/readyz")).status_code == 503
        during_delay = asyncio.create_task(service.client.post("/predict", content=PHOTO))
        while not loader.engines[1].batches:
            await turn(0)
        delay_is_over.set()
        await turn(0)
        assert (await service.client.post("/predict", content=PHOTO)).json()["type"] == "/problems/draining"
        assert not draining.done()
        loader.engines[1].release()
        assert await draining == 0
        assert (await during_delay).status_code == 200


async def test_unanswered_requests_are_told_of_the_drain(store: Path, loader: Loader) -> None:
    async with running(store, loader) as service:
        loader.engines[1].hold()
        stuck = asyncio.create_task(service.client.post("/predict", content=PHOTO))
        while not loader.engines[1].batches:
            await asyncio.sleep(0)
        assert await service.service.drain(delay_s=0, timeout_s=0.01) == 1
        answer = await stuck
        assert (answer.status_code, answer.json()["type"]) == (503, "/problems/draining")
        assert answer.headers["X-Request-ID"] == answer.json()["request_id"]
        loader.engines[1].release()
