import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from support.fakes import Loader
from support.running import Running, running

from service.api.problems import MEDIA_TYPE, PROBLEMS

pytestmark = pytest.mark.anyio


@pytest.fixture
async def service(store: Path, loader: Loader) -> AsyncIterator[Running]:
    async with running(store, loader) as service:
        yield service


async def test_the_page_of_the_api_needs_nothing_from_elsewhere(service: Running) -> None:
    page = await service.client.get("/docs")
    assert "://" not in page.text
    addresses = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert len(addresses) == 3
    for address in addresses:
        assert (await service.client.get(f"/{address}")).status_code == 200
    assert '"validatorUrl": null' in page.text


async def test_openapi_shows_every_kind_of_problem_with_an_example(service: Running) -> None:
    document = (await service.client.get("/openapi.json")).json()
    documented: dict[str, set[int]] = {}
    for operations in document["paths"].values():
        for operation in operations.values():
            for status, response in operation["responses"].items():
                for name, example in response.get("content", {}).get(MEDIA_TYPE, {}).get("examples", {}).items():
                    assert status == str(example["value"]["status"])
                    documented.setdefault(name, set()).add(example["value"]["status"])
    name, _ = document["paths"]["/problems/{name}"]["get"]["parameters"]
    assert set(name["schema"]["enum"]) == PROBLEMS.keys()
    statuses = {name: {problem.status} for name, problem in PROBLEMS.items()}
    assert documented == {**statuses, "overloaded": {429, 503}}  # 503 for want of memory


async def test_the_documents_are_counted_as_what_they_are(service: Running) -> None:
    for path in ("/docs", "/openapi.json"):
        await service.client.get(path)
        text = (await service.client.get("/metrics")).text
        assert f'flowers_requests_total{{method="GET",route="{path}",status="200"}} 1.0' in text


async def test_openapi_is_sound(service: Running) -> None:
    document = (await service.client.get("/openapi.json")).json()
    schemas = document["components"]["schemas"]
    text = json.dumps(document)
    assert set(re.findall(r"#/components/schemas/(\w+)", text)) <= schemas.keys()
    assert "HTTPValidationError" not in schemas  # a 422 is a problem here
    predict = document["paths"]["/predict"]["post"]
    assert set(predict["requestBody"]["content"]) == {
        "multipart/form-data",
        "image/*",
        "application/octet-stream",
        "application/json",
    }
    assert {parameter["name"] for parameter in predict["parameters"]} == {
        "top_k",
        "x-request-timeout-ms",
        "X-Request-ID",
    }
    assert schemas["PredictionBody"]["example"]["label"] == "roses"
    score = schemas["LabelProbability"]["properties"]["probability"]
    assert (score["minimum"], score["maximum"]) == (0, 1)


async def test_the_example_has_the_shape_of_a_prediction(service: Running) -> None:
    document: dict[str, Any] = (await service.client.get("/openapi.json")).json()
    body = document["components"]["schemas"]["PredictionBody"]
    assert body["example"]["confident"], "such an answer has no reason"
    assert body["example"].keys() == body["properties"].keys() - {"reason"}


async def test_an_explained_problem_has_its_request_s_id(service: Running) -> None:
    response = await service.client.get("/problems/overloaded")
    assert response.json()["request_id"] == response.headers["x-request-id"]
