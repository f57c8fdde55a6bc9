import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from fakes import Loader
from running import Running, running
from versions import publish_example

from service.store.resolve import pin_version

pytestmark = pytest.mark.anyio


@pytest.fixture
async def service(store: Path, loader: Loader) -> AsyncIterator[Running]:
    async with running(store, loader) as service:
        yield service


async def test_every_model_is_listed_and_the_served_one_names_its_live_version(service: Running, store: Path) -> None:
    publish_example(store, "birds")
    publish_example(store)
    assert (await service.client.get("/models")).json() == {
        "models": [
            {"name": "birds", "live_version": None, "versions": [1]},
            {"name": "flowers", "live_version": 1, "versions": [1, 2]},
        ]
    }


async def test_a_model_shows_what_is_live_on_which_engine_and_its_card(service: Running) -> None:
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


async def test_a_refused_version_says_why_and_the_pinned_one_that_it_is(service: Running, store: Path) -> None:
    publish_example(store)
    (store / "flowers/2/saved_model.pb").write_bytes(b"another network")
    pin_version(store, "flowers", 1)
    await service.look()
    (store / "flowers/PINNED").unlink()
    await service.look()
    pin_version(store, "flowers", 1)
    first, second = (await service.client.get("/models/flowers")).json()["versions"]
    assert (first["live"], first["pinned"], first["refused"]) == (True, True, None)
    assert (second["live"], second["pinned"]) == (False, False)
    assert "saved_model.pb was changed" in second["refused"]


async def test_an_unreadable_card_is_left_out(service: Running, store: Path) -> None:
    publish_example(store)
    (store / "flowers/2/assets.extra/metadata.json").write_text("{")
    versions = (await service.client.get("/models/flowers")).json()["versions"]
    assert [version["created"] for version in versions] == ["2026-01-02T03:04:05Z", None]


async def test_what_is_served_is_listed_though_its_folder_is_gone(service: Running, store: Path) -> None:
    shutil.rmtree(store / "flowers")
    assert (await service.client.get("/models")).json() == {
        "models": [{"name": "flowers", "live_version": 1, "versions": []}]
    }
    details = (await service.client.get("/models/flowers")).json()
    assert (details["live"]["version"], details["versions"]) == (1, [])
    assert details["card"]["model"] == "flowers"


@pytest.mark.parametrize(
    "name", ["orchids", "..", "%2e%2e", "..%2fflowers", "flowers%00", ".git", "flowers/1", "x" * 300]
)
async def test_no_name_from_a_request_leaves_the_store(service: Running, name: str) -> None:
    response = await service.client.get(f"/models/{name}")
    assert response.status_code == 404
    assert "model_store" not in response.json()["detail"]
