from pathlib import Path
from typing import Any

import pytest
from support.fakes import Loader
from support.running import running

pytestmark = pytest.mark.anyio
PROBED = {"200", "400", "405", "408", "431", "500", "503"}
KEY = "a-key-of-32-characters-000000001"


async def test_every_route_of_a_protocol_is_documented(store: Path, loader: Loader) -> None:
    settings: dict[str, Any] = {"vertex_predict_route": "/vertex", "vertex_health_route": "/health", "api_keys": KEY}
    async with running(store, loader, **settings) as service:
        document = (await service.client.get("/openapi.json")).json()
    paths = document["paths"]
    for path in ("/hugging-face", "/invocations", "/vertex"):
        operation = paths[path]["post"]
        assert operation["requestBody"]["content"]["application/json"]["schema"]["example"]
        assert {"200", "400", "401", "413", "422", "429", "500", "503", "504"} <= operation["responses"].keys()
        assert operation["security"]
    for path in ("/ping", "/health"):
        assert (paths[path]["get"]["security"], paths[path]["get"]["responses"].keys()) == ([], PROBED)
    assert {"LabelScore", "VertexBody", "ImageScores"} <= document["components"]["schemas"].keys()


async def test_a_shared_path_keeps_its_description(store: Path, loader: Loader) -> None:
    async with running(store, loader, vertex_predict_route="/predict") as service:
        operation = (await service.client.get("/openapi.json")).json()["paths"]["/predict"]["post"]
    answers = operation["responses"]
    assert operation["summary"] == "Classify one image"
    schema = operation["requestBody"]["content"]["application/json"]["schema"]
    assert [set(one["properties"]) for one in schema["anyOf"]] == [{"image", "top_k"}, {"instances", "parameters"}]
    assert {"$ref": "#/components/schemas/VertexBody"} in answers["200"]["content"]["application/json"]["schema"][
        "anyOf"
    ]
    assert answers["422"]["content"].keys() == {"application/json", "application/problem+json"}


async def test_a_probe_may_share_the_path_of_predictions(store: Path, loader: Loader) -> None:
    async with running(store, loader, vertex_predict_route="/vertex", vertex_health_route="/vertex") as service:
        document = (await service.client.get("/openapi.json")).json()
    assert document["paths"]["/vertex"].keys() == {"get", "post"}
