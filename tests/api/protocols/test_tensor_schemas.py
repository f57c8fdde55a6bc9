from pathlib import Path
from typing import Any

import pytest
from support.documented import check_answer
from support.fakes import Loader
from support.running import running

from service.api.protocols.tensor_schemas import INFER, PREDICT

pytestmark = pytest.mark.anyio


async def test_answers_have_the_documented_fields(store: Path, loader: Loader) -> None:
    async with running(store, loader) as service:
        document = (await service.client.get("/openapi.json")).json()
        for path, operations in document["paths"].items():
            if path.startswith(("/v1", "/v2")) and "get" in operations:
                response = await service.client.get(path.format(name="flowers", version="1"))
                assert response.status_code == 200, path
                check_answer(document, "get", path, response)


@pytest.mark.parametrize("classification", [None, 2])
async def test_inferred_tensors_have_the_documented_fields(
    store: Path, loader: Loader, classification: int | None
) -> None:
    parameters = {} if classification is None else {"classification": classification}
    asked = {**INFER["example"], "outputs": [{"name": "probabilities", "parameters": parameters}]}
    await check(store, loader, "/v2/models/{name}/infer", asked)


@pytest.mark.parametrize("key", ["instances", "inputs"])
async def test_predicted_rows_have_the_documented_fields(store: Path, loader: Loader, key: str) -> None:
    await check(store, loader, "/v1/models/{name}:predict", {key: PREDICT["example"]["instances"]})


async def check(store: Path, loader: Loader, path: str, asked: dict[str, Any]) -> None:
    async with running(store, loader) as service:
        document = (await service.client.get("/openapi.json")).json()
        response = await service.client.post(path.format(name="flowers"), json=asked)
    assert response.status_code == 200, response.text
    check_answer(document, "post", path, response)
