import asyncio
from pathlib import Path

import pytest
from prometheus_client import CONTENT_TYPE_LATEST
from support.fakes import FakeEngine, Loader
from support.running import running
from support.versions import publish_example

from service.errors import EngineFailed

pytestmark = pytest.mark.anyio
PROBES = ("/livez", "/startupz", "/readyz")


async def test_the_first_version_makes_an_empty_service_ready(
    tmp_path: Path,
) -> None:
    store = tmp_path / "model_store"
    async with running(store, Loader()) as service:
        assert [(await service.client.get(path)).status_code for path in PROBES] == [200, 503, 503]
        assert "model_store/flowers" in (await service.client.get("/readyz")).json()["detail"]
        publish_example(store)
        await service.look()
        answers = [await service.client.get(path) for path in PROBES]
        assert [(answer.status_code, answer.json()["status"]) for answer in answers] == [
            (200, "alive"),
            (200, "started"),
            (200, "ready"),
        ]


async def test_a_corrupt_version_is_alive_and_never_ready(store: Path, loader: Loader) -> None:
    (store / "flowers/1/saved_model.pb").write_bytes(b"another network")
    async with running(store, loader) as service:
        assert [(await service.client.get(path)).status_code for path in PROBES] == [200, 503, 503]
        assert "saved_model.pb was changed" in (await service.client.get("/readyz")).json()["detail"]
        assert loader.loads == []


async def test_a_failed_warm_up_means_not_ready(store: Path, loader: Loader) -> None:
    loader.engines[1].warm_up_error = EngineFailed("no probabilities")
    async with running(store, loader) as service:
        assert (await service.client.get("/readyz")).status_code == 503
        loader.engines[2] = FakeEngine()
        publish_example(store)
        await service.look()
        assert loader.engines[2].warmed_up_to
        assert (await service.client.get("/readyz")).status_code == 200


async def test_the_probes_answer_during_the_first_load(store: Path, loader: Loader) -> None:
    loader.may_load.clear()
    async with running(store, loader, look=False) as service:
        assert [(await service.client.get(path)).status_code for path in PROBES] == [200, 503, 503]
        loader.may_load.set()
        await service.look()
        assert [(await service.client.get(path)).status_code for path in PROBES] == [200, 200, 200]


async def test_loading_a_new_version_never_turns_ready_false(store: Path, loader: Loader) -> None:
    async with running(store, loader) as service:
        loader.may_load.clear()
        publish_example(store)
        looking = asyncio.create_task(service.look())
        while loader.loads != [1, 2]:
            await asyncio.sleep(0)
        assert (await service.client.get("/readyz")).status_code == 200
        loader.may_load.set()
        await looking
        assert (await service.client.get("/readyz")).status_code == 200


async def test_balancers_may_ask_with_head(store: Path, loader: Loader) -> None:
    async with running(store, loader) as service:
        for path in PROBES:
            response = await service.client.head(path)
            assert (response.status_code, response.content) == (200, b"")


async def test_a_started_service_stays_started(store: Path, loader: Loader) -> None:
    async with running(store, loader) as service:
        service.service.health.block("engine", "the engine fails on every image")
        assert (await service.client.get("/readyz")).status_code == 503
        assert (await service.client.get("/startupz")).status_code == 200


async def test_metrics_say_which_text_format_they_have(store: Path, loader: Loader) -> None:
    async with running(store, loader) as service:
        content_type = (await service.client.get("/metrics")).headers["content-type"]
    assert content_type == CONTENT_TYPE_LATEST
