"""The puller beside a watch of its cache, and behind a whole service."""

import asyncio
import json
import shutil
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest
from conftest import REPOSITORY
from structlog.testing import capture_logs
from support.drawing import draw_photograph, encode
from support.web_store import WebStoreServer, corrupt, cut, fail, served_store

from service.api.app import create_app
from service.remote_store.location import StoreUrl
from service.remote_store.puller import Puller, make_puller
from service.settings import ServeSettings
from service.store.manage import remove_version
from service.store.versions import StoredVersion
from service.store.watch import Refusal, StoreWatch, Taken

pytestmark = pytest.mark.anyio


class Replica:
    """A watch that takes every version, and the puller of its store."""

    def __init__(self, url: StoreUrl, folder: Path) -> None:
        self.waiting = ""
        self.watch = StoreWatch(folder, "flowers", self._take, self._wait, self._on_thread)
        self.puller = Puller(url, self.watch, interval_s=0.01, max_bytes=10**9)

    async def serves(self, version: int) -> None:
        async with asyncio.timeout(20):
            while self.watch.in_use != version:
                await self.look()

    async def says(self, words: str) -> None:
        async with asyncio.timeout(20):
            while words not in self.waiting:
                await self.look()

    async def look(self) -> None:
        await self.watch.look()
        await asyncio.sleep(0.01)

    def close(self) -> None:
        self.puller.stop()

    def start(self) -> None:
        self.puller.start()

    async def _take(self, _: StoredVersion) -> Taken | Refusal:
        return Taken({})

    def _wait(self, reason: str) -> None:
        self.waiting = reason

    async def _on_thread(self, function: Callable[..., Any], *arguments: Any) -> Any:
        return function(*arguments)


async def test_a_folder_needs_no_puller(tmp_path: Path, web: WebStoreServer) -> None:
    with closing(Replica(web.url, tmp_path / "cache")) as replica:
        assert make_puller(tmp_path, replica.watch, interval_s=1, max_bytes=1) is None
        assert isinstance(make_puller(web.url, replica.watch, interval_s=1, max_bytes=1), Puller)


async def test_the_remote_store_is_watched(web: WebStoreServer, tmp_path: Path) -> None:
    index = (web.store / "index.json").read_text()
    (web.store / "index.json").write_text(json.dumps(json.loads(index)[:1]))
    with closing(Replica(web.url, tmp_path / "cache")) as replica:
        replica.start()
        await replica.serves(1)
        (web.store / "index.json").write_text(index)
        await replica.serves(2)
        remove_version(web.store, "flowers", 2, force=True)
        web.index()
        await replica.serves(1)


async def test_without_the_store_the_cache_is_served(web: WebStoreServer, tmp_path: Path) -> None:
    with closing(Replica(web.url, tmp_path / "cache")) as replica:
        replica.start()
        await replica.serves(2)
    nowhere = StoreUrl("http", "127.0.0.1:1", "/models")
    with capture_logs() as logged, closing(Replica(nowhere, tmp_path / "cache")) as replica:
        replica.start()
        await replica.serves(2)
        async with asyncio.timeout(20):
            while not any(event["event"] == "remote store unavailable" for event in logged):
                await asyncio.sleep(0.01)


async def test_a_trouble_is_logged_once_with_its_end(web: WebStoreServer, tmp_path: Path) -> None:
    web.faults["index.json"] = fail(500)
    with capture_logs() as logged, closing(Replica(web.url, tmp_path / "cache")) as replica:
        replica.start()
        async with asyncio.timeout(20):
            while len(web.paths) < 3:
                await replica.look()
        web.faults.clear()
        await replica.serves(2)
    events = [event["event"] for event in logged if event["event"].startswith("remote store")]
    assert events == ["remote store unavailable", "remote store available"]


@pytest.mark.parametrize(
    ("end", "fault", "words"),
    [
        ("index.json", fail(403), "cannot be read. See the service's log."),
        ("index.json", lambda handler, _: handler.answer(200, b"[]"), "has none. Publish one"),
        ("saved_model.pb", corrupt, "Version 2 was not pulled. saved_model.pb"),
        ("saved_model.pb", cut, "cannot be read"),
    ],
)
async def test_a_waiting_service_says_what_is_missing(
    web: WebStoreServer, tmp_path: Path, end: str, fault: Callable[..., None], words: str
) -> None:
    web.faults[end] = fault
    with closing(Replica(web.url, tmp_path / "cache")) as replica:
        await replica.look()
        assert replica.waiting == "No version of flowers is in the cache yet. The remote store is being read."
        replica.start()
        await replica.says(words)
        assert str(web.url) not in replica.waiting
        assert str(tmp_path) not in replica.waiting


async def test_a_service_answers_from_a_remote_store(tmp_path: Path) -> None:
    store = tmp_path / "published"
    shutil.copytree(REPOSITORY / "model_store", store)
    (version,) = (store / "flowers").glob("[0-9]*")
    with served_store(store) as web:
        app = create_app(
            ServeSettings(model_store=web.url, cache=tmp_path / "cache", reload_interval_s=3600, device="cpu")
        )
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://flowers") as client,
        ):
            async with asyncio.timeout(60):
                while (await client.get("/readyz")).status_code != 200:
                    await asyncio.sleep(0.02)
            answer = await client.post("/predict", content=encode(draw_photograph(1, seed=1)))
            assert answer.json()["model"] == {"name": "flowers", "version": int(version.name)}
            listed = (await client.get("/models/flowers")).text
            assert "127.0.0.1" not in listed
            assert str(tmp_path) not in listed
