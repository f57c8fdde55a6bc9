from pathlib import Path

import pytest
from support.documented import check_answer
from support.fakes import Loader
from support.running import running

from service.api.operations import name_operation

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    ("method", "path", "name"),
    [
        ("get", "/", "get_page"),
        ("post", "/hugging-face", "post_hugging_face"),
        ("post", "/v1/models/{name}:predict", "post_v1_models_name_predict"),
    ],
)
async def test_an_operation_is_named_after_its_path(method: str, path: str, name: str) -> None:
    assert name_operation(method, path) == name


async def test_every_operation_has_its_own_id(store: Path, loader: Loader) -> None:
    async with running(store, loader, vertex_predict_route="/vertex", vertex_health_route="/vertex") as service:
        document = (await service.client.get("/openapi.json")).json()
    names = [operation["operationId"] for path in document["paths"].values() for operation in path.values()]
    assert len(set(names)) == len(names) > 30


async def test_each_answer_documents_the_id_of_its_request(store: Path, loader: Loader) -> None:
    async with running(store, loader) as service:
        response = await service.client.get("/openapi.json", headers={"X-Request-ID": "mine"})
    document = response.json()
    check_answer(document, "get", "/openapi.json", response)
    for path in document["paths"].values():
        for operation in path.values():
            assert "X-Request-ID" in {parameter["name"] for parameter in operation["parameters"]}
            assert all("X-Request-ID" in answer["headers"] for answer in operation["responses"].values())
