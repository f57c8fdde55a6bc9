"""`POST /explain`: its answers, its limits, its end. The engine is fake, so that a test commands its calls."""

import asyncio
import base64
import io
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import httpx
import numpy as np
import pytest
from PIL import Image
from support.drawing import draw_photograph, encode
from support.fakes import FakeEngine, Loader
from support.running import Running, running
from support.versions import publish_example

from service.imaging.decode import decode_image
from service.imaging.resize import resize

pytestmark = pytest.mark.anyio

PHOTO = encode(draw_photograph(0, seed=1))
JSON = {"Accept": "application/json"}


@pytest.fixture(autouse=True)
def only_explanations_call(monkeypatch: pytest.MonkeyPatch) -> None:
    """The watchdog sends no image of its own, however slow the machine is."""
    monkeypatch.setattr("service.inference.watchdog.Watchdog.start", lambda _: None)


@pytest.fixture
async def service(store: Path, loader: Loader) -> AsyncIterator[Running]:
    async with running(store, loader) as service:
        yield service


@pytest.fixture
def engine(loader: Loader) -> FakeEngine:
    return loader.engines[1]


async def explain(service: Running, photo: bytes = PHOTO, **options: Any) -> httpx.Response:
    return await service.client.post("/explain", content=photo, **options)


async def until_called(engine: FakeEngine) -> None:
    while not engine.batches:
        await asyncio.sleep(0)


async def test_json_has_the_promised_form(service: Running) -> None:
    response = await explain(service, headers={**JSON, "X-Request-ID": "r-1"}, params={"label": "daisy"})
    answer = response.json()
    assert answer.keys() == {"request_id", "model", "label", "probability", "grid"}
    assert (answer["request_id"], answer["model"]) == ("r-1", {"name": "flowers", "version": 1})
    assert answer["label"] == "daisy"
    assert [len(row) for row in answer["grid"]] == [7] * 7
    square = resize(decode_image(PHOTO))
    assert answer["probability"] == pytest.approx(square[0, 0, 0] / 512, abs=1e-6)
    assert answer["grid"][0][0] == pytest.approx((square[0, 0, 0] - square[..., 0].mean().round()) / 512, abs=1e-6)
    assert response.headers["content-type"] == "application/json"
    assert response.headers["x-request-id"] == "r-1"
    stages = [stage.split(";dur=") for stage in response.headers["server-timing"].split(", ")]
    assert [name for name, _ in stages] == ["decode", "queue", "infer"]


async def test_an_image_in_json_is_explained_alike(service: Running) -> None:
    document = {"image": base64.b64encode(PHOTO).decode()}
    response = await service.client.post("/explain", json=document, headers=JSON)
    assert response.json()["grid"] == (await explain(service, headers=JSON)).json()["grid"]
    refused = await service.client.post("/explain", json={**document, "top_k": 1})
    assert (refused.status_code, refused.json()["type"]) == (422, "/problems/invalid-parameter")


async def test_the_default_is_the_square_as_png(service: Running) -> None:
    response = await explain(service)
    assert response.headers["content-type"] == "image/png"
    assert response.headers["vary"] == "Accept"
    image = Image.open(io.BytesIO(response.content))
    assert (image.format, image.size) == ("PNG", (224, 224))
    square = resize(decode_image(PHOTO))
    np.testing.assert_array_equal(np.asarray(image)[100:, 100:], square[100:, 100:])
    assert response.headers["x-flowers-label"] == "dandelion"
    best = (await service.client.post("/predict", content=PHOTO)).json()
    assert float(response.headers["x-flowers-probability"]) == best["probability"]


async def test_the_png_shows_positive_drops(service: Running) -> None:
    square = resize(decode_image(PHOTO)).astype(int)
    label = "daisy" if square[0, 0, 0] > square[..., 0].mean() else "dandelion"  # which loses by a covered first cell
    image = np.asarray(Image.open(io.BytesIO((await explain(service, params={"label": label})).content))).astype(int)
    assert np.abs(image - square)[:16, :16].mean() > 30


@pytest.mark.parametrize(
    ("accept", "media_type"),
    [
        ("application/json", "application/json"),
        ("image/png;q=0.5, application/json", "application/json"),
        ("application/json;q=0.5, image/*", "image/png"),
        ("*/*", "image/png"),
        ("text/html", "image/png"),
    ],
)
async def test_accept_chooses_the_form(service: Running, accept: str, media_type: str) -> None:
    response = await explain(service, headers={"Accept": accept})
    assert (response.status_code, response.headers["content-type"]) == (200, media_type)


async def test_two_accept_headers_are_one_list(service: Running) -> None:
    headers = [("Accept", "image/png;q=0.1"), ("Accept", "application/json")]
    request = service.client.build_request("POST", "/explain", content=PHOTO, headers=headers)
    assert (await service.client.send(request)).headers["content-type"] == "application/json"


async def test_a_form_is_taken_as_well(service: Running) -> None:
    response = await service.client.post("/explain", files={"file": ("flower.jpg", PHOTO)}, headers=JSON)
    assert response.json()["grid"] == (await explain(service, headers=JSON)).json()["grid"]


async def test_a_label_of_any_letters_is_percent_encoded(tmp_path: Path, loader: Loader) -> None:
    names = ["Gänse/blümchen", "雛菊", "roses", "sunflowers", "tulips"]
    publish_example(tmp_path, class_names=names)
    async with running(tmp_path, loader) as service:
        for label in names[:2]:
            response = await explain(service, params={"label": label})
            header = response.headers["x-flowers-label"]
            assert header.isascii()
            assert unquote(header) == label
            assert "/" not in header
            answer = (await explain(service, headers=JSON, params={"label": label})).json()
            assert answer["label"] == label


async def endless() -> AsyncIterator[bytes]:
    yield b"\xff\xd8"
    await asyncio.Event().wait()


@pytest.mark.parametrize(
    ("query", "detail"),
    [
        ("label=rose", "The nearest is 'roses'"),
        ("labels=roses", "The nearest is 'label'"),
        ("top_k=2", "The nearest is 'label'"),
        ("label=roses&label=tulips", "label is given twice"),
    ],
)
async def test_a_wrong_query_is_refused_before_the_body(service: Running, query: str, detail: str) -> None:
    async with asyncio.timeout(60):
        response = await service.client.post(f"/explain?{query}", content=endless())
    assert (response.status_code, response.json()["type"]) == (422, "/problems/invalid-parameter")
    assert detail in response.json()["detail"]


@pytest.mark.parametrize(
    ("photo", "status", "problem"),
    [(b"", 400, "missing-image"), (b"no image", 415, "unsupported-image-format"), (PHOTO[:900], 422, "invalid-image")],
)
async def test_bad_images_have_the_problems_of_predictions(
    service: Running, photo: bytes, status: int, problem: str
) -> None:
    response = await explain(service, photo)
    assert (response.status_code, response.json()["type"]) == (status, f"/problems/{problem}")
    assert response.headers["content-type"] == "application/problem+json"


async def test_one_works_four_wait_and_more_get_429(service: Running, engine: FakeEngine) -> None:
    engine.hold()
    usage = service.service.admission.shared.own
    accepted = [asyncio.create_task(explain(service)) for _ in range(5)]
    while usage.num_explanations < 5 or not engine.batches:
        await asyncio.sleep(0)
    assert usage.num_explaining == 1
    async with asyncio.timeout(60):
        refused = await service.client.post("/explain", content=endless())
    assert (refused.status_code, refused.json()["type"]) == (429, "/problems/overloaded")
    assert int(refused.headers["retry-after"]) >= 1
    assert service.service.admission.num_waiting == 0  # its images take no place of predictions
    engine.release()
    assert [(await answer).status_code for answer in accepted] == [200] * 5
    assert max(engine.batches) == 4
    assert (await explain(service)).status_code == 200


@pytest.mark.parametrize(("timeout_s", "client_ms"), [(0.05, 60_000), (30, 50)])
async def test_a_late_explanation_is_504(store: Path, loader: Loader, timeout_s: float, client_ms: int) -> None:
    headers = {"X-Request-Timeout-Ms": str(client_ms)}
    async with running(store, loader, explain_timeout_s=timeout_s) as service:
        loader.engines[1].hold()
        response = await explain(service, headers=headers)
        loader.engines[1].release()
    assert (response.status_code, response.json()["type"]) == (504, "/problems/deadline-exceeded")


async def test_it_ends_when_the_client_leaves(service: Running, engine: FakeEngine) -> None:
    engine.hold()
    left = asyncio.Event()
    statuses: list[int] = []
    messages: list[dict[str, Any]] = [{"type": "http.request", "body": PHOTO, "more_body": False}]

    async def receive() -> dict[str, Any]:
        if messages:
            return messages.pop()
        await left.wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        statuses.append(message.get("status", 0))

    scope = {"type": "http", "method": "POST", "path": "/explain", "query_string": b"", "root_path": ""}
    headers = [(b"content-length", str(len(PHOTO)).encode())]
    request = asyncio.create_task(service.app({**scope, "headers": headers}, receive, send))
    await until_called(engine)
    left.set()
    await request
    assert statuses[0] == 499
    engine.release()
    await service.client.post("/predict", content=PHOTO)
    assert engine.batches == [4, 1]


async def test_a_drain_waits_for_the_explanation(service: Running, engine: FakeEngine) -> None:
    engine.hold()
    explaining = asyncio.create_task(explain(service))
    await until_called(engine)
    draining = asyncio.create_task(service.service.drain(delay_s=0, timeout_s=60))
    await asyncio.sleep(0.01)
    assert (await explain(service)).json()["type"] == "/problems/draining"
    assert not draining.done()
    engine.release()
    assert await draining == 0
    assert (await explaining).status_code == 200


async def test_an_unanswered_explanation_counts_in_the_drain(service: Running, engine: FakeEngine) -> None:
    engine.hold()
    explaining = asyncio.create_task(explain(service))
    await until_called(engine)
    assert await service.service.drain(delay_s=0, timeout_s=0.01) == 1
    assert (await explaining).json()["type"] == "/problems/draining"
    engine.release()


async def test_switched_off_the_path_is_gone(store: Path, loader: Loader) -> None:
    async with running(store, loader, explanations=False) as service:
        response = await explain(service)
        assert (response.status_code, response.json()["type"]) == (404, "/problems/not-found")
        assert (await service.client.get("/models")).json()["explanations"] is False
        document = (await service.client.get("/openapi.json")).json()
        assert "/explain" not in document["paths"]
        assert "ExplanationBody" not in document["components"]["schemas"]


async def test_a_key_is_wanted_where_there_are_keys(store: Path, loader: Loader) -> None:
    async with running(store, loader, api_keys="a-key-of-32-characters-000000001") as service:
        assert (await explain(service)).status_code == 401
        response = await explain(service, headers={"X-API-Key": "a-key-of-32-characters-000000001"})
        assert response.status_code == 200


async def test_its_images_are_counted_and_no_prediction(service: Running) -> None:
    assert (await explain(service)).status_code == 200
    lines = (await service.client.get("/metrics")).text.splitlines()
    assert "flowers_batch_size_images_sum 50.0" in lines
    assert 'flowers_requests_total{method="POST",route="/explain",status="200"} 1.0' in lines
    assert not [line for line in lines if line.startswith("flowers_predictions_total{")]


async def test_the_document_has_both_forms_and_headers(service: Running) -> None:
    document = (await service.client.get("/openapi.json")).json()
    operation = document["paths"]["/explain"]["post"]
    answer = operation["responses"]["200"]
    assert answer["content"].keys() == {"application/json", "image/png"}
    own = {"Server-Timing", "X-Flowers-Label", "X-Flowers-Probability"}
    assert answer["headers"].keys() == own | {"X-Request-ID"}
    predict = document["paths"]["/predict"]["post"]
    assert operation["responses"].keys() == predict["responses"].keys()
    parameters = {parameter["name"] for parameter in operation["parameters"]}
    assert parameters == {"label", "x-request-timeout-ms", "X-Request-ID"}
    assert operation["requestBody"]["content"].keys() == predict["requestBody"]["content"].keys()
