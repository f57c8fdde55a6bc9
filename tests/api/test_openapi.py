from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import pytest
from starlette.routing import Route
from support.documented import check_answer
from support.drawing import draw_photograph, encode
from support.fakes import FakeEngine, Loader
from support.running import running
from support.versions import publish_example

from service import __version__

pytestmark = pytest.mark.anyio
KEY = "a-key-of-32-characters-000000001"
PHOTO = encode(draw_photograph(3, seed=300))


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


async def test_every_route_is_documented(store: Path, loader: Loader) -> None:
    async with running(store, loader, vertex_predict_route="/vertex", vertex_health_route="/health") as service:
        paths = (await service.client.get("/openapi.json")).json()["paths"]
        routes = [route for route in service.app.routes if isinstance(route, Route) and route.methods]
        for route in [*routes, *service.service.protocols.routes]:
            if not route.include_in_schema:
                continue
            documented = paths[route.path.replace(":path}", "}")]
            assert {method.lower() for method in route.methods or () if method != "HEAD"} <= documented.keys()


REFUSED: list[tuple[str, str, dict[str, Any], int]] = [
    ("post", "/predict", {"content": b""}, 400),
    ("post", "/predict", {"content": b"a", "headers": {"Content-Type": "text/plain"}}, 415),
    ("post", "/predict", {"content": b"GIF89a", "params": {"top_k": 6}}, 422),
    ("post", "/predict", {"content": bytes(200_000)}, 413),
    ("post", "/predict/batch", {"content": b"a", "headers": {"Content-Type": "image/png"}}, 415),
    ("post", "/explain", {"json": {"image": "AAAA"}}, 415),
    ("post", "/hugging-face", {"json": {"inputs": 1}}, 422),
    ("post", "/invocations", {"content": PHOTO, "headers": {"X-Request-Timeout-Ms": "0"}}, 422),
    ("post", "/vertex", {"json": {"instances": []}}, 400),
    ("post", "/v1/models/{name}:predict", {"json": {"instances": [{}]}}, 422),
    ("post", "/v2/models/{name}/infer", {"content": b"{"}, 400),
    ("get", "/v2/models/{name}/versions/{version}/ready", {}, 404),
    ("get", "/v1/models/{name}/versions/{version}", {}, 404),
    ("get", "/problems/{name}", {}, 404),
    ("get", "/docs/{asset}", {}, 404),
    ("get", "/page/{name}", {}, 404),
    ("get", "/", {"headers": {"If-None-Match": "*"}}, 304),
]


async def test_refusals_are_answered_as_documented(store: Path, loader: Loader) -> None:
    async with running(store, loader, vertex_predict_route="/vertex", max_image_bytes=100_000) as service:
        document = (await service.client.get("/openapi.json")).json()
        for method, path, asked, status in REFUSED:
            url = path.format(name="flowers", version="7", asset="none.js")
            response = await service.client.request(method, url, **asked)
            assert response.status_code == status, f"{path}: {response.text}"
            check_answer(document, method, path, response)


async def test_readiness_and_keys_are_refused_as_documented(tmp_path: Path, loader: Loader) -> None:
    async with running(tmp_path, loader, api_keys=KEY) as service:
        headers = {"X-API-Key": KEY}
        document = (await service.client.get("/openapi.json", headers=headers)).json()
        for path, operations in document["paths"].items():
            url = path.format(name="flowers", version="1", asset="none.js")
            for method, operation in operations.items():
                if operation["security"]:
                    response = await service.client.request(method, url)
                    assert response.status_code == 401, path
                    check_answer(document, method, path, response)
                response = await service.client.request(method, url, headers=headers)
                check_answer(document, method, path, response)
