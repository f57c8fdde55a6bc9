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


@pytest.mark.parametrize(
    "body",
    [
        {"content": PHOTO},
        {"content": PHOTO, "headers": {"Content-Type": "application/x-image"}},
        {"content": PHOTO, "headers": {"Content-Type": "image/png", "Accept": "application/json"}},
        {"content": PHOTO, "headers": {"Content-Type": "application/octet-stream"}},
        {"json": {"image": TEXT}},
    ],
)
async def test_invocations_answer_as_predictions_do(service: Running, body: dict[str, Any]) -> None:
    answer = await service.client.post("/invocations", **body, params={"top_k": 2})
    expected = await service.client.post("/predict", content=PHOTO, params={"top_k": 2})
    assert answer.status_code == 200, answer.text
    assert answer.json() | {"request_id": ""} == expected.json() | {"request_id": ""}


async def test_a_refusal_has_the_protocol_s_form(service: Running) -> None:
    response = await service.client.post("/invocations", json={"image": TEXT, "label": 1})
    assert (response.status_code, response.json().keys()) == (422, {"error"})


async def test_ping_follows_readiness(service: Running, tmp_path: Path) -> None:
    assert (await service.client.get("/ping")).status_code == 200
    service.service.health.is_draining = True
    response = await service.client.get("/ping")
    assert (response.status_code, response.json().keys()) == (503, {"error"})
