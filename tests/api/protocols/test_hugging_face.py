import base64
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from support.drawing import draw_photograph, encode
from support.fakes import Loader
from support.running import Running, running

pytestmark = pytest.mark.anyio

PHOTO = encode(draw_photograph(2, seed=300))
TEXT = base64.b64encode(PHOTO).decode()


@pytest.fixture
async def service(store: Path, loader: Loader) -> AsyncIterator[Running]:
    async with running(store, loader) as service:
        yield service


async def scores_of(service: Running, top_k: int | None = None) -> list[dict[str, Any]]:
    """The scores of `/predict` in the client's words."""
    answer = (await service.client.post("/predict", content=PHOTO)).json()
    scores = [{"label": score["label"], "score": score["probability"]} for score in answer["predictions"]]
    return scores[:top_k]


@pytest.mark.parametrize("headers", [{}, {"Content-Type": "image/jpeg"}, {"Content-Type": "application/octet-stream"}])
async def test_a_raw_image_gets_all_labels(service: Running, headers: dict[str, str]) -> None:
    response = await service.client.post("/hugging-face", content=PHOTO, headers=headers)
    assert (response.status_code, response.json()) == (200, await scores_of(service))
    assert response.headers["content-type"] == "application/json"
    assert response.headers["server-timing"]
    text = (await service.client.get("/metrics")).text
    assert 'flowers_requests_total{method="POST",route="/hugging-face",status="200"} 1.0' in text


@pytest.mark.parametrize(
    ("document", "top_k"),
    [
        ({"inputs": TEXT}, None),
        ({"inputs": TEXT, "parameters": None}, None),
        ({"inputs": f"data:image/jpeg;base64,{TEXT}", "parameters": {"top_k": 2}}, 2),
        ({"inputs": TEXT, "parameters": {"top_k": 1, "function_to_apply": "softmax"}}, 1),
    ],
)
async def test_parameters_come_in_json(service: Running, document: dict[str, Any], top_k: int | None) -> None:
    response = await service.client.post("/hugging-face", json=document)
    assert (response.status_code, response.json()) == (200, await scores_of(service, top_k))


@pytest.mark.parametrize(
    ("document", "status"),
    [
        ({"inputs": TEXT, "parameters": {"function_to_apply": "sigmoid"}}, 422),
        ({"inputs": TEXT, "parameters": {"function_to_apply": "none"}}, 422),
        ({"inputs": TEXT, "parameters": {"top_k": 6}}, 422),
        ({"inputs": TEXT, "parameters": {"topk": 2}}, 422),
        ({"inputs": TEXT, "image": TEXT}, 422),
        ({"inputs": "https://host/photo.jpg"}, 422),
        ({"parameters": {}}, 400),
        ([TEXT], 422),
    ],
)
async def test_other_documents_are_refused(service: Running, document: Any, status: int, loader: Loader) -> None:
    response = await service.client.post("/hugging-face", json=document)
    assert (response.status_code, response.json().keys()) == (status, {"error"})
    assert loader.engines[1].batches == []
