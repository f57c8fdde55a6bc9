import base64
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from support.drawing import draw_photograph, encode
from support.fakes import Loader
from support.running import Running, running
from support.tensors import PREDICT, squares_of

from service.imaging.decode import decode_image
from service.imaging.resize import resize

pytestmark = pytest.mark.anyio

PHOTOS = [encode(draw_photograph(index, seed=300)) for index in range(2)]
FILES = [{"b64": base64.b64encode(photo).decode()} for photo in PHOTOS]
IMAGES = [resize(decode_image(photo)).tolist() for photo in PHOTOS]
PIXELS = squares_of(100, 20)


@pytest.fixture
async def service(store: Path, loader: Loader) -> AsyncIterator[Running]:
    async with running(store, loader) as service:
        yield service


@pytest.fixture(scope="module")
async def real(tiny_version: Path) -> AsyncIterator[Running]:
    async with running(tiny_version, engine="onnxruntime", precision="float32", access_log=False) as service:
        yield service


async def predict(service: Running, document: Any) -> httpx.Response:
    return await service.client.post(PREDICT, json=document)


async def test_rows_and_columns_get_the_row_of_predict(real: Running) -> None:
    expected = []
    names = (await real.client.get("/models/flowers")).json()["card"]["class_names"]
    for photo in PHOTOS:
        answer = (await real.client.post("/predict", content=photo)).json()
        by_label = {score["label"]: score["probability"] for score in answer["predictions"]}
        expected.append([by_label[name] for name in names])
    for images in (FILES, IMAGES):
        for document in (
            {"instances": images},
            {"instances": [{"images": image} for image in images], "signature_name": "serving_default"},
            {"inputs": images},
            {"inputs": {"images": images}, "signature_name": ""},
        ):
            response = await predict(real, document)
            assert response.headers["content-type"] == "application/json"
            ((key, rows),) = response.json().items()
            assert key == ("predictions" if "instances" in document else "outputs")
            np.testing.assert_allclose(rows, expected, atol=1e-6)


async def test_one_file_may_stand_for_the_input(service: Running) -> None:
    for document in ({"inputs": FILES[0]}, {"inputs": {"images": FILES[0]}}):
        assert len((await predict(service, document)).json()["outputs"]) == 1


async def test_rows_come_in_order_and_are_counted(service: Running) -> None:
    response = await service.client.post("/v1/models/flowers/versions/1:predict", json={"inputs": PIXELS.tolist()})
    assert [row[0] for row in response.json()["outputs"]] == [100 / 512, 20 / 512]
    text = (await service.client.get("/metrics")).text
    route = "/v1/models/{name}/versions/{version}:predict"
    assert f'flowers_requests_total{{method="POST",route="{route}",status="200"}} 1.0' in text
    assert "flowers_prediction_probability_count 2.0" in text


async def test_the_status_names_the_live_version(service: Running) -> None:
    status = {"error_code": "OK", "error_message": ""}
    versions = [{"version": "1", "state": "AVAILABLE", "status": status}]
    for path in ("/v1/models/flowers", "/v1/models/flowers/versions/1"):
        body = (await service.client.get(path)).json()
        assert (body["model_version_status"], body["ready"]) == (versions, True)
    service.service.health.is_draining = True
    response = await service.client.get("/v1/models/flowers")
    assert (response.status_code, list(response.json())) == (503, ["error"])


async def test_metadata_have_the_signature_and_the_resize_rule(service: Running) -> None:
    for path in ("/v1/models/flowers/metadata", "/v1/models/flowers/versions/1/metadata"):
        body = (await service.client.get(path)).json()
        assert body["model_spec"] == {"name": "flowers", "signature_name": "", "version": "1"}
        signature = body["metadata"]["signature_def"]["signature_def"]["serving_default"]
        assert signature["method_name"] == "tensorflow/serving/predict"
        (images,), (probabilities,) = signature["inputs"].values(), signature["outputs"].values()
        assert (images["dtype"], probabilities["dtype"]) == ("DT_UINT8", "DT_FLOAT")
        sizes = [[size["size"] for size in one["tensor_shape"]["dim"]] for one in (images, probabilities)]
        assert sizes == [["-1", "224", "224", "3"], ["-1", "5"]]
        assert body["metadata"]["preprocessing"]["shorter_side"] == 256


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1/models/birds", 404),
        ("GET", "/v1/models/birds/metadata", 404),
        ("POST", "/v1/models/birds:predict", 404),
        ("GET", "/v1/models/flowers/versions/2", 404),
        ("POST", "/v1/models/flowers/versions/2:predict", 404),
        ("POST", "/v1/models/flowers/labels/stable:predict", 404),
        ("POST", "/v1/models/flowers:classify", 404),
        ("POST", "/v1/models/flowers:regress", 404),
        ("POST", "/v1/models/flowers/versions/1:regress", 404),
        ("GET", "/v1/models", 404),
        ("DELETE", "/v1/models/flowers", 405),
    ],
)
async def test_unknown_places_have_the_protocols_errors(service: Running, method: str, path: str, status: int) -> None:
    response = await service.client.request(method, path)
    assert (response.status_code, list(response.json())) == (status, ["error"])
    assert response.headers["content-type"] == "application/json"


FLAT = [7] * (224 * 224 * 3)
REFUSED: list[tuple[Any, int, str]] = [
    ([], 400, "JSON object"),
    ({}, 400, "neither"),
    ({"instances": FILES, "inputs": FILES}, 400, "one of them"),
    ({"instances": FILES, "signature_name": "scores"}, 400, "signature_name"),
    ({"instances": FILES, "signature_name": 7}, 400, "signature_name"),
    ({"instances": []}, 400, "no image"),
    ({"instances": FILES[0]}, 422, "list"),
    ({"instances": "image"}, 422, "list"),
    ({"instances": FILES[:1] * 33}, 413, "33 images"),
    ({"instances": [{"image": FILES[0]}]}, 422, "'images'"),
    ({"instances": [FILES[0] | {"top_k": 3}]}, 422, "no image"),
    ({"instances": [[1, 2]]}, 422, "no image"),
    ({"instances": [FLAT]}, 422, "another shape"),
    ({"instances": FLAT * 33}, 413, "33 images"),
    ({"inputs": FLAT}, 422, "another shape"),
    ({"inputs": [0.5] * 1000}, 422, "another shape"),
    ({"inputs": {"pixels": FILES}}, 422, "'images'"),
    ({"instances": [{"b64": "no base64"}]}, 422, "instances[0].b64"),
    ({"instances": [{"b64": base64.b64encode(PHOTOS[0][:900]).decode()}]}, 422, "image"),
]  # fmt: skip


async def test_requests_of_another_form_are_refused(service: Running) -> None:
    for document, status, words in REFUSED:
        response = await predict(service, document)
        assert (response.status_code, list(response.json())) == (status, ["error"]), str(document)[:200]
        assert words in response.json()["error"]
    assert service.service.admission.num_bytes == 0


async def test_compression_is_refused_with_the_option(service: Running) -> None:
    response = await service.client.post(PREDICT, content=b"...", headers={"Content-Encoding": "gzip"})
    assert response.status_code == 415
    assert "request_compression_algorithm" in response.json()["error"]


async def test_image_files_share_the_limit_of_bytes(store: Path, loader: Loader) -> None:
    async with running(store, loader, max_batch_bytes=len(PHOTOS[0]) + 1) as service:
        assert (await predict(service, {"instances": FILES[:1]})).status_code == 200
        assert (await predict(service, {"instances": FILES})).status_code == 413


async def test_the_switch_turns_the_routes_off(store: Path, loader: Loader) -> None:
    async with running(store, loader, tensorflow_serving=False) as service:
        response = await service.client.get("/v1/models/flowers")
        assert (response.status_code, response.headers["content-type"]) == (404, "application/problem+json")
