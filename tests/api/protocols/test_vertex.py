import base64
from pathlib import Path
from typing import Any

import pytest
from support.drawing import draw_photograph, encode
from support.fakes import Loader
from support.running import Running, running

pytestmark = pytest.mark.anyio

PHOTOS = [encode(draw_photograph(class_index, seed=300)) for class_index in range(3)]
INSTANCES = [{"b64": base64.b64encode(photo).decode()} for photo in PHOTOS]
ROUTE = "/v1/endpoints/7/deployedModels/8:predict"
KEY = "a-key-of-32-characters-000000001"


async def bodies_of(service: Running, **parameters: Any) -> list[dict[str, Any]]:
    """What `/predict` answers, without model and id."""
    answers = [(await service.client.post("/predict", content=photo, params=parameters)).json() for photo in PHOTOS]
    return [{key: value for key, value in answer.items() if key not in ("model", "request_id")} for answer in answers]


@pytest.mark.parametrize("route", [ROUTE, "/predict", "/invocations"])
@pytest.mark.parametrize("model_id", ["", "8"])
async def test_instances_become_predictions(store: Path, loader: Loader, route: str, model_id: str) -> None:
    settings: dict[str, Any] = {"vertex_predict_route": route, "vertex_deployed_model_id": model_id}
    async with running(store, loader, **settings) as service:
        response = await service.client.post(route, json={"instances": INSTANCES, "parameters": {"top_k": 2}})
        expected = await bodies_of(service, top_k=2)
        text = (await service.client.get("/metrics")).text
    assert response.status_code == 200, response.text
    assert response.json() == {"predictions": expected} | ({"deployedModelId": "8"} if model_id else {})
    assert f'flowers_requests_total{{method="POST",route="{route}",status="200"}}' in text


@pytest.mark.parametrize("route", ["/predict", "/invocations"])
async def test_a_shared_path_answers_other_bodies_as_before(store: Path, loader: Loader, route: str) -> None:
    async with running(store, loader, vertex_predict_route=route) as service:
        expected = (await bodies_of(service))[0]
        for body in ({"content": PHOTOS[0]}, {"files": {"file": PHOTOS[0]}}, {"json": {"image": INSTANCES[0]["b64"]}}):
            answer: dict[str, Any] = (await service.client.post(route, **body)).json()
            assert {key: answer[key] for key in expected} == expected
            assert answer["model"] == {"name": "flowers", "version": 1}
        response = await service.client.post("/predict", json={"image": "?"})
        assert response.headers["content-type"] == "application/problem+json"
        bad = await service.client.post(route, json={"instances": [{"b64": "?"}]})
    assert (bad.status_code, bad.headers["content-type"]) == (422, "application/json")


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"instances": [*INSTANCES, {"b64": base64.b64encode(b"no image").decode()}]}, 415),
        ({"instances": [*INSTANCES, {"b64": "QUI"}]}, 422),
        ({"instances": INSTANCES * 2}, 413),
        ({"instances": []}, 400),
        ({"instances": [{}]}, 400),
        ({"instances": [INSTANCES[0]["b64"]]}, 422),
        ({"instances": [INSTANCES[0] | {"key": 1}]}, 422),
        ({"instances": INSTANCES, "parameters": {"top_k": 9}}, 422),
        ({"instances": INSTANCES, "signature": "x"}, 422),
        ({"image": INSTANCES[0]["b64"]}, 422),
        ([INSTANCES[0]], 422),
    ],
)
async def test_one_wrong_instance_fails_the_whole(store: Path, loader: Loader, body: Any, status: int) -> None:
    async with running(store, loader, vertex_predict_route=ROUTE, max_batch_size=5) as service:
        response = await service.client.post(ROUTE, json=body)
        text = (await service.client.get("/metrics")).text
    assert (response.status_code, response.headers["content-type"]) == (status, "application/json")
    assert "flowers_predictions_total{" not in text


async def test_all_images_together_have_a_limit(store: Path, loader: Loader) -> None:
    size = sum(map(len, PHOTOS))
    for max_batch_bytes, status in ((size, 200), (size - 1, 413)):
        settings: dict[str, Any] = {"vertex_predict_route": ROUTE, "max_batch_bytes": max_batch_bytes}
        async with running(store, loader, **settings) as service:
            response = await service.client.post(ROUTE, json={"instances": INSTANCES})
        assert response.status_code == status


async def test_a_body_that_is_no_json_is_refused(store: Path, loader: Loader) -> None:
    async with running(store, loader, vertex_predict_route=ROUTE) as service:
        assert (await service.client.post(ROUTE, content=PHOTOS[0])).status_code == 415


async def test_only_the_health_route_is_open(store: Path, loader: Loader) -> None:
    settings: dict[str, Any] = {"vertex_predict_route": "/vertex", "vertex_health_route": "/vertex", "api_keys": KEY}
    async with running(store, loader, **settings) as service:
        assert (await service.client.get("/vertex")).json() == {"status": "ready"}
        assert (await service.client.post("/vertex", json={"instances": INSTANCES})).status_code == 401
        assert (await service.client.get("/vertex/x")).status_code == 401


@pytest.mark.parametrize("route", ["/readyz", "/ping"])
async def test_a_health_route_of_ours_stays(store: Path, loader: Loader, route: str) -> None:
    async with running(store, loader, vertex_health_route=route) as service:
        assert (await service.client.get(route)).json() == {"status": "ready"}


async def test_a_protocol_s_own_path_keeps_its_form(store: Path, loader: Loader) -> None:
    async with running(store, loader, vertex_predict_route="/hugging-face") as service:
        assert isinstance((await service.client.post("/hugging-face", content=PHOTOS[0])).json(), list)


async def test_the_switch_takes_the_routes_away(store: Path, loader: Loader) -> None:
    settings: dict[str, Any] = {"vertex": False, "vertex_predict_route": ROUTE, "vertex_health_route": "/health"}
    async with running(store, loader, **settings) as service:
        assert (await service.client.get("/health")).status_code == 404
        assert (await service.client.post(ROUTE, json={"instances": INSTANCES})).status_code == 404
