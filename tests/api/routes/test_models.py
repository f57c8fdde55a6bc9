import asyncio
import os
import shutil
import threading
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from support.fakes import Loader
from support.running import Running, running
from support.versions import publish_example

from service.store.manage import pin_version

pytestmark = pytest.mark.anyio


@pytest.fixture
async def service(store: Path, loader: Loader) -> AsyncIterator[Running]:
    async with running(store, loader) as service:
        yield service


async def test_the_list_of_models_names_the_live_version(service: Running, store: Path) -> None:
    publish_example(store, "birds")
    publish_example(store)
    (store / "flowers/2/saved_model.pb").write_bytes(b"another network")
    await service.look()
    assert (await service.client.get("/models")).json() == {
        "models": [
            {"name": "birds", "live_version": None, "versions": [1]},
            {"name": "flowers", "live_version": 1, "versions": [1, 2]},
        ],
        "explanations": True,
    }


async def test_a_model_shows_its_engine_and_its_card(service: Running) -> None:
    details = (await service.client.get("/models/flowers")).json()
    assert details["live"] == {
        "version": 1,
        "engine": "fake",
        "device": "cpu",
        "precision": "float32",
        "reason": "the test commands it",
    }
    assert details["versions"] == [
        {
            "version": 1,
            "live": True,
            "pinned": False,
            "created": "2026-01-02T03:04:05Z",
            "accuracy": 0.85,
            "refused": None,
        }
    ]
    assert details["card"]["class_names"] == ["daisy", "dandelion", "roses", "sunflowers", "tulips"]


async def test_a_model_shows_its_refused_and_pinned_versions(service: Running, store: Path) -> None:
    publish_example(store)
    (store / "flowers/2/saved_model.pb").write_bytes(b"another network")
    pin_version(store, "flowers", 1)
    await service.look()
    (store / "flowers/PINNED").unlink()
    await service.look()
    pin_version(store, "flowers", 1)
    await service.look()
    first, second = (await service.client.get("/models/flowers")).json()["versions"]
    assert (first["live"], first["pinned"], first["refused"]) == (True, True, None)
    assert (second["live"], second["pinned"]) == (False, False)
    assert "saved_model.pb was changed" in second["refused"]
    assert (second["created"], second["accuracy"]) == (None, None)


async def test_an_unreadable_card_is_left_out(service: Running, store: Path) -> None:
    publish_example(store)
    pin_version(store, "flowers", 1)  # so that the other one is not verified
    (store / "flowers/2/assets.extra/metadata.json").write_text("{")
    await service.look()
    versions = (await service.client.get("/models/flowers")).json()["versions"]
    assert [version["created"] for version in versions] == ["2026-01-02T03:04:05Z", None]


async def test_a_served_model_without_a_folder_is_listed(service: Running, store: Path) -> None:
    shutil.rmtree(store / "flowers")
    await service.look()
    assert (await service.client.get("/models")).json() == {
        "models": [{"name": "flowers", "live_version": 1, "versions": []}],
        "explanations": True,
    }
    details = (await service.client.get("/models/flowers")).json()
    assert (details["live"]["version"], details["versions"]) == (1, [])
    assert details["card"]["model"] == "flowers"


@pytest.mark.parametrize("name", ["orchids", "%2e%2e", "..%2fflowers", "flowers%00", ".git", "flowers/1", "x" * 300])
async def test_no_name_from_a_request_leaves_the_store(service: Running, name: str) -> None:
    response = await service.client.get(f"/models/{name}")
    assert response.status_code == 404
    assert "model_store" not in response.json()["detail"]


async def test_a_request_touches_no_file_and_starts_no_thread(
    service: Running, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A network drive that hangs holds up the loading thread, and nobody else."""

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a request must not wait for the store")

    shutil.rmtree(store)
    for function in ("open", "stat", "lstat", "scandir", "listdir"):
        monkeypatch.setattr(os, function, refuse)
    monkeypatch.setattr(threading.Thread, "start", refuse)
    monkeypatch.setattr(asyncio, "to_thread", refuse)
    assert (await service.client.get("/models")).json()["models"][0]["versions"] == [1]
    assert (await service.client.get("/models/flowers")).json()["versions"][0]["accuracy"] == 0.85
    assert (await service.client.get("/models/orchids")).status_code == 404


async def test_a_pipe_as_metadata_delays_no_request(service: Running, store: Path) -> None:
    pin_version(store, "flowers", 1)
    publish_example(store)
    metadata = store / "flowers/2/assets.extra/metadata.json"
    metadata.unlink()
    os.mkfifo(metadata)
    await service.look()
    details = (await service.client.get("/models/flowers")).json()
    assert [version["accuracy"] for version in details["versions"]] == [0.85, None]


async def test_an_unread_store_is_not_ready(store: Path, loader: Loader) -> None:
    async with running(store, loader, look=False) as service:
        service.service.live_model.snapshot = None  # as while the first look hangs
        for path in ("/models", "/models/flowers"):
            response = await service.client.get(path)
            assert response.status_code == 503
            assert response.headers["retry-after"] == "5"


async def test_the_card_is_not_that_of_a_damaged_version(store: Path, loader: Loader) -> None:
    (store / "flowers/1/saved_model.pb").write_bytes(b"another network")
    async with running(store, loader) as service:
        details = (await service.client.get("/models/flowers")).json()
    assert (details["live"], details["card"]) == (None, None)
    assert "saved_model.pb was changed" in details["versions"][0]["refused"]


async def test_the_card_is_that_of_the_newest_version(service: Running, store: Path) -> None:
    for year in (2024, 2025):
        publish_example(store, "birds", created=datetime(year, 1, 1, tzinfo=UTC))
    await service.look()
    details = (await service.client.get("/models/birds")).json()
    assert details["card"]["created"] == "2025-01-01T00:00:00Z"


async def test_a_refusal_concerns_the_versions_of_its_model(service: Running, store: Path) -> None:
    publish_example(store)
    (store / "flowers/2/saved_model.pb").write_bytes(b"another network")
    for _ in range(2):
        publish_example(store, "birds")
    await service.look()
    flowers = (await service.client.get("/models/flowers")).json()
    birds = (await service.client.get("/models/birds")).json()
    assert "was changed" in flowers["versions"][1]["refused"]
    assert [version["refused"] for version in birds["versions"]] == [None, None]
    assert birds["versions"][1]["accuracy"] == 0.85


async def test_an_unknown_name_is_repeated_in_few_letters(service: Running) -> None:
    detail = (await service.client.get("/models/" + "x" * 5_000)).json()["detail"]
    assert "xxx" in detail
    assert len(detail) < 200
