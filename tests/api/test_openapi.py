from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import pytest
from support.fakes import FakeEngine, Loader
from support.running import running
from support.versions import publish_example

from service import __version__

pytestmark = pytest.mark.anyio


async def read_document(store: Path, loader: Loader, **settings: Any) -> dict[str, Any]:
    async with running(store, loader, **settings) as service:
        document: dict[str, Any] = (await service.client.get("/openapi.json")).json()
        return document


@pytest.mark.parametrize("folder", ["http://host/", "https://host/flowers/", "https://host/a/b/"])
async def test_paths_are_tried_where_the_document_lies(store: Path, loader: Loader, folder: str) -> None:
    """A proxy strips the prefix, so the service does not know it."""
    document = await read_document(store, loader)
    (server,) = document["servers"]
    base = urljoin(f"{folder}openapi.json", server["url"]).removesuffix("/")  # as Swagger UI joins them
    assert f"{base}/predict" == f"{folder}predict"


async def test_title_and_descriptions_name_the_model_that_is_served(tmp_path: Path, loader: Loader) -> None:
    publish_example(tmp_path, "garden")
    loader.engines[1] = FakeEngine()
    document = await read_document(tmp_path, loader, model="garden")
    assert "garden" in document["info"]["title"]
    assert "`garden`" in document["info"]["description"]
    assert document["components"]["schemas"]["PredictionBody"]["example"]["model"]["name"] == "garden"
    assert "flower" not in str(document["info"]).lower()


async def test_the_document_is_made_once(store: Path, loader: Loader) -> None:
    async with running(store, loader) as service:
        assert service.app.openapi() is service.app.openapi()


async def test_the_page_names_the_model_that_is_served(tmp_path: Path, loader: Loader) -> None:
    async with running(tmp_path, loader, model="garden") as service:
        assert "<title>garden " in (await service.client.get("/docs")).text


async def test_the_page_finds_its_files_behind_a_slash(store: Path, loader: Loader) -> None:
    async with running(store, loader) as service:
        page = (await service.client.get("/docs/")).text
        assert "url: '../openapi.json'" in page
        assert "../docs/swagger-ui.css" in page


async def test_the_document_has_the_program_s_version(store: Path, loader: Loader) -> None:
    assert (await read_document(store, loader))["info"]["version"] == __version__


async def test_answers_to_repeat_document_retry_after(store: Path, loader: Loader) -> None:
    responses = (await read_document(store, loader))["paths"]["/predict"]["post"]["responses"]
    to_repeat = {status for status, response in responses.items() if "Retry-After" in response.get("headers", {})}
    assert to_repeat == {"429", "503"}
