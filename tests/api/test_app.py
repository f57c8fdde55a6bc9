"""`create_app`: each setting reaches its part."""

import asyncio
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from support.drawing import draw_photograph, encode
from support.fakes import FakeEngine, Loader
from support.running import running

from service.api.app import create_app
from service.settings import ServeSettings

pytestmark = pytest.mark.anyio
PHOTO = encode(draw_photograph(0, seed=1))


async def test_one_image_always_fits_a_small_max_queue_bytes(store: Path, loader: Loader) -> None:
    async with running(store, loader, max_queue_bytes=1024) as service:
        assert len(PHOTO) > 1024
        assert (await service.client.post("/predict", content=PHOTO)).status_code == 200


async def test_no_batch_is_larger_than_max_batch_size(store: Path, loader: Loader) -> None:
    engine = loader.engines[1]
    engine.lanes_decode = True  # so that an image waits from its arrival
    async with running(store, loader, max_batch_size=2) as service:
        engine.hold()
        sent = [asyncio.create_task(service.client.post("/predict", content=PHOTO)) for _ in range(6)]
        while service.service.admission.num_images < 6 or not engine.batches:
            await asyncio.sleep(0)
        engine.release()
        assert {(await answer).status_code for answer in sent} == {200}
    assert sum(engine.batches) == 6
    assert max(engine.batches) == 2


async def test_every_engine_setting_reaches_the_engine(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, object] = {}

    def load_engine(_: object, *wishes: object, **settings: object) -> FakeEngine:
        for wish in wishes:
            given.update({name: getattr(wish, name) for name in getattr(wish, "__slots__", None) or vars(wish)})
        given.update(settings)
        return FakeEngine()

    monkeypatch.setattr("service.engines.open_version.load_engine", load_engine)
    settings: Mapping[str, Any] = {
        "engine": "onnxruntime",
        "device": "cpu",
        "precision": "float32",
        "engine_threads": 3,
        "gpu_memory_limit_mb": 512,
    }
    async with running(store, **settings) as service:
        assert (await service.client.get("/readyz")).status_code == 200
    assert given["threads"] == 3
    assert given["gpu_memory_limit_mb"] == 512
    assert (given["engine"], given["device"], given["precision"]) == ("onnxruntime", "cpu", "float32")


async def test_large_images_are_decoded_on_decode_threads(
    store: Path, loader: Loader, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two threads decode, so the third image waits."""
    arrived, may_end = threading.Semaphore(0), threading.Event()
    names = set()

    def decode(*_: object, **__: object) -> None:
        names.add(threading.current_thread().name)
        arrived.release()
        may_end.wait(60)
        raise MemoryError

    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", decode)
    async with running(store, loader, decode_threads=2) as service:
        sent = [asyncio.create_task(service.client.post("/predict", content=PHOTO)) for _ in range(4)]
        for _ in range(2):
            assert await asyncio.to_thread(arrived.acquire, timeout=60)
        while service.service.admission.num_images < 4:
            await asyncio.sleep(0)
        may_end.set()
        assert {(await answer).status_code for answer in sent} == {503}
    assert len(names) == 2


async def test_the_store_is_scanned_every_reload_interval_s(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    turn, pauses = asyncio.sleep, []

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)
        await turn(seconds)

    monkeypatch.setattr("service.engines.open_version.load_engine", lambda *_, **__: FakeEngine())
    monkeypatch.setattr(asyncio, "sleep", sleep)
    app = create_app(ServeSettings(model_store=store, reload_interval_s=1234))
    async with app.router.lifespan_context(app):
        while not [seconds for seconds in pauses if seconds > 1]:  # other watches look more often
            await turn(0.01)
    assert max(pauses) == 1234


async def test_an_engine_tells_when_it_is_loaded(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    threads = []
    monkeypatch.setattr("service.engines.open_version.load_engine", lambda *_, **__: FakeEngine())
    settings = ServeSettings(model_store=store, reload_interval_s=3600)
    app = create_app(settings, on_loaded=lambda: threads.append(threading.current_thread().name))
    async with app.router.lifespan_context(app):
        await app.state.service.live_model.look()
    assert len(threads) == 1
    assert threads[0].startswith("load-model")


PAGE = "https://garden.example"


@pytest.mark.parametrize("name", ["Authorization", "Content-Type", "X-API-Key", "X-Request-ID", "X-Request-Timeout-Ms"])
async def test_a_named_origin_may_send_each_header(store: Path, loader: Loader, name: str) -> None:
    preflight = {"Origin": PAGE, "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": name}
    async with running(store, loader, cors_origins=PAGE) as service:
        response = await service.client.options("/predict", headers=preflight)
    assert (response.status_code, response.headers["access-control-allow-origin"]) == (200, PAGE)


async def test_a_named_origin_may_read_five_headers(store: Path, loader: Loader) -> None:
    async with running(store, loader, cors_origins=PAGE) as service:
        response = await service.client.post("/predict", content=PHOTO, headers={"Origin": PAGE})
    exposed = response.headers["access-control-expose-headers"].split(", ")
    of_explanations = {"X-Flowers-Label", "X-Flowers-Probability"}
    assert set(exposed) == {"Retry-After", "Server-Timing", "X-Request-ID"} | of_explanations


async def test_timeouts_are_those_of_the_settings(store: Path, loader: Loader) -> None:
    async with running(store, loader, request_timeout_s=3, body_timeout_s=4) as service:
        assert service.service.request_timeout_s == 3
        assert service.service.upload_limits.body_timeout_s == 4
