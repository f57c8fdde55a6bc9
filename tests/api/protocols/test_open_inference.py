import base64
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from support.drawing import draw_photograph, encode
from support.fakes import Loader
from support.running import Running, running
from support.tensors import (
    INFER,
    OCTETS,
    binary_request,
    bytes_tensor,
    images_tensor,
    pack,
    squares_of,
    tensor,
)  # fmt: skip
from support.versions import publish_example

from service import __version__
from service.imaging.decode import decode_image
from service.imaging.resize import resize

pytestmark = pytest.mark.anyio

PHOTOS = [encode(draw_photograph(index, seed=300)) for index in range(2)]
TEXTS = [base64.b64encode(photo).decode() for photo in PHOTOS]
PIXELS = squares_of(100, 20)
FIRST = [100 / 512, 20 / 512]
"""First probabilities of `PIXELS`, by the fake engine."""


@pytest.fixture
async def service(store: Path, loader: Loader) -> AsyncIterator[Running]:
    async with running(store, loader) as service:
        yield service


@pytest.fixture(scope="module")
async def real(tiny_version: Path) -> AsyncIterator[Running]:
    async with running(tiny_version, engine="onnxruntime", precision="float32", access_log=False) as service:
        yield service


def rows_of(response: httpx.Response) -> list[list[float]]:
    (output,) = response.json()["outputs"]
    rows: list[list[float]] = np.array(output["data"]).reshape(output["shape"]).tolist()
    return rows


async def infer(service: Running, *inputs: dict[str, Any], **fields: Any) -> httpx.Response:
    return await service.client.post(INFER, json={"inputs": list(inputs), **fields})


async def test_every_input_gets_the_row_of_predict(real: Running) -> None:
    answers = [(await real.client.post("/predict", content=photo)).json() for photo in PHOTOS]
    names = (await real.client.get("/models/flowers")).json()["card"]["class_names"]
    by_label = [{score["label"]: score["probability"] for score in answer["predictions"]} for answer in answers]
    expected = [[scores[name] for name in names] for scores in by_label]

    pixels = np.stack([resize(decode_image(photo)) for photo in PHOTOS])
    floats, shape = pixels.astype("<f4"), list(pixels.shape)
    files = bytes_tensor(*PHOTOS)
    requests = [
        await infer(real, images_tensor(pixels)),
        await infer(real, images_tensor(pixels, data=pixels.ravel().tolist())),
        await infer(real, tensor("images_fp32", "FP32", shape, data=floats.tolist())),
        await infer(real, tensor("images_fp32", "FP32", shape, data=floats.ravel().tolist())),
        await infer(real, tensor("encoded", "BYTES", [2], data=TEXTS)),
        await real.client.post(INFER, **binary_request("images", "UINT8", shape, pixels.tobytes())),
        await real.client.post(INFER, **binary_request("images_fp32", "FP32", shape, floats.tobytes())),
        await real.client.post(INFER, **binary_request("encoded", "BYTES", [2], files)),
    ]
    for response in requests:
        np.testing.assert_allclose(rows_of(response), expected, atol=1e-6)


async def test_an_answer_has_the_form_of_the_protocol(service: Running) -> None:
    response = await infer(service, images_tensor(PIXELS), id="request 7")
    assert response.headers["content-type"] == "application/json"
    assert response.headers["server-timing"]
    body = response.json()
    assert body.keys() == {"model_name", "model_version", "id", "outputs"}
    assert (body["model_name"], body["model_version"], body["id"]) == ("flowers", "1", "request 7")
    (output,) = body["outputs"]
    assert output.keys() == {"name", "datatype", "shape", "data"}
    assert (output["name"], output["datatype"], output["shape"]) == ("probabilities", "FP32", [2, 5])
    assert [row[0] for row in rows_of(response)] == FIRST
    text = (await service.client.get("/metrics")).text
    assert 'flowers_requests_total{method="POST",route="/v2/models/{name}/infer",status="200"} 1.0' in text
    assert "flowers_prediction_probability_count 2.0" in text


@pytest.mark.parametrize("request_id", ["x" * 1000, 'é "quoted" ' * 20, ""])
async def test_ids_are_repeated_as_they_are(service: Running, request_id: str) -> None:
    assert (await infer(service, GOOD, id=request_id)).json()["id"] == request_id


async def test_without_an_id_there_is_none(service: Running) -> None:
    assert "id" not in (await infer(service, GOOD)).json()


@pytest.mark.parametrize(
    "fields",
    [
        {"parameters": {"binary_data_output": True}},
        {"parameters": {"binary_data_output": True}, "outputs": [{"name": "probabilities"}]},
        {"outputs": [{"name": "probabilities", "parameters": {"binary_data": True}}]},
    ],
)
async def test_outputs_follow_the_json_on_request(service: Running, fields: dict[str, Any]) -> None:
    response = await infer(service, images_tensor(PIXELS), **fields)
    assert response.headers["content-type"] == "application/octet-stream"
    num_json = int(response.headers["inference-header-content-length"])
    (output,) = json.loads(response.content[:num_json])["outputs"]
    assert output["parameters"] == {"binary_data_size": 2 * 5 * 4}
    assert "data" not in output
    rows = np.frombuffer(response.content[num_json:], "<f4").reshape(output["shape"])
    np.testing.assert_array_equal(rows[:, 0], np.array(FIRST, np.float32))


async def test_an_output_may_stay_in_the_json(service: Running) -> None:
    outputs = [{"name": "probabilities", "parameters": {"binary_data": False}}]
    response = await infer(service, images_tensor(PIXELS), outputs=outputs, parameters={"binary_data_output": True})
    assert rows_of(response)[0][0] == FIRST[0]
    assert "inference-header-content-length" not in response.headers


@pytest.mark.parametrize("binary", [False, True])
async def test_classifications_have_score_index_and_label(service: Running, binary: bool) -> None:
    parameters = {"classification": 2, "binary_data": binary}
    response = await infer(
        service, images_tensor(PIXELS), outputs=[{"name": "probabilities", "parameters": parameters}]
    )
    expected = ["0.804688:1:dandelion", "0.195312:0:daisy", "0.960938:1:dandelion", "0.039062:0:daisy"]
    num_json = int(response.headers.get("inference-header-content-length", len(response.content)))
    (output,) = json.loads(response.content[:num_json])["outputs"]
    assert (output["datatype"], output["shape"]) == ("BYTES", [2, 2])
    if binary:
        packed = bytes_tensor(*(text.encode() for text in expected))
        assert (response.content[num_json:], output["parameters"]) == (packed, {"binary_data_size": len(packed)})
    else:
        assert output["data"] == expected


async def test_metadata_describe_server_and_model(service: Running, store: Path) -> None:
    for path in ("/v2", "/v2/"):
        server = (await service.client.get(path)).json()
        assert server["extensions"] == ["classification", "binary_tensor_data"]
        assert (server["name"], server["version"]) == ("flowers", __version__)
    publish_example(store)
    (store / "flowers/2/saved_model.pb").write_bytes(b"another network")
    await service.look()
    for path in ("/v2/models/flowers", "/v2/models/flowers/versions/1", "/v2/models/flowers/"):
        model = (await service.client.get(path)).json()
        assert (model["name"], model["versions"], model["platform"]) == ("flowers", ["1"], "tensorflow_savedmodel")
        assert model["inputs"] == [
            tensor("images", "UINT8", [-1, 224, 224, 3]),
            tensor("images_fp32", "FP32", [-1, 224, 224, 3]),
            tensor("encoded", "BYTES", [-1]),
        ]
        assert model["outputs"] == [tensor("probabilities", "FP32", [-1, 5])]
        assert "exactly one" in model["parameters"]["inputs"]
        assert (model["parameters"]["shorter_side"], model["parameters"]["image_size"]) == (256, 224)


async def test_probes_tell_live_and_ready(service: Running) -> None:
    for path, body in (
        ("/v2/health/live", {"live": True}),
        ("/v2/health/ready", {"live": True, "ready": True}),
        ("/v2/models/flowers/ready", {"name": "flowers", "ready": True}),
        ("/v2/models/flowers/versions/1/ready", {"name": "flowers", "ready": True}),
    ):
        response = await service.client.get(path)
        assert (response.status_code, response.json()) == (200, body)
    service.service.health.is_draining = True
    assert (await service.client.get("/v2/health/live")).status_code == 200
    for path in ("/v2/health/ready", "/v2/models/flowers/ready", "/v2/models/flowers/versions/1/ready"):
        response = await service.client.get(path)
        assert (response.status_code, list(response.json())) == (503, ["error"])


async def test_probes_want_no_key(store: Path, loader: Loader) -> None:
    async with running(store, loader, api_keys="k" * 32) as service:
        for path in ("/v2/health/live", "/v2/health/ready", "/v2/models/flowers/ready"):
            assert (await service.client.get(path)).status_code == 200
        for path in ("/v2", "/v2/models/flowers", "/v2/models/flowers/versions/1/ready"):
            response = await service.client.get(path)
            assert (response.status_code, list(response.json())) == (401, ["error"])
        assert (await infer(service, images_tensor(PIXELS))).status_code == 401


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v2/models/birds", 404),
        ("GET", "/v2/models/birds/ready", 404),
        ("POST", "/v2/models/birds/infer", 404),
        ("GET", "/v2/models/flowers/versions/2", 404),
        ("GET", "/v2/models/flowers/versions/latest/ready", 404),
        ("POST", "/v2/models/flowers/versions/2/infer", 404),
        ("GET", "/v2/models/flowers/config", 404),
        ("GET", "/v2/models/flowers/infer", 405),
        ("POST", "/v2/health/live", 405),
    ],
)
async def test_unknown_places_have_the_protocols_errors(service: Running, method: str, path: str, status: int) -> None:
    response = await service.client.request(method, path)
    assert (response.status_code, list(response.json())) == (status, ["error"])
    assert response.headers["content-type"] == "application/json"
    assert response.headers["x-request-id"]
    if "versions" in path:
        assert "Version 1 is" in response.json()["error"]


GOOD = tensor("encoded", "BYTES", [1], data=TEXTS[:1])
IMAGES = tensor("images", "UINT8", [1, 224, 224, 3], data=[1, 2, 3])
REFUSED: list[tuple[Any, int, str]] = [
    ([GOOD], 400, "JSON object"),
    ({}, 400, "inputs"),
    ({"inputs": []}, 400, "inputs"),
    ({"inputs": GOOD}, 400, "inputs"),
    ({"inputs": [GOOD, GOOD]}, 422, "2 inputs"),
    ({"inputs": ["images"]}, 422, "inputs[0]"),
    ({"inputs": [GOOD | {"name": "pixels"}]}, 422, "'pixels'"),
    ({"inputs": [GOOD | {"name": "x" * 100}]}, 422, "called"),
    ({"inputs": [IMAGES | {"datatype": "INT8"}]}, 422, "UINT8"),
    ({"inputs": [IMAGES | {"datatype": ["UINT8"]}]}, 422, "UINT8"),
    ({"inputs": [GOOD | {"datatype": "UINT8"}]}, 422, "BYTES"),
    ({"inputs": [IMAGES | {"shape": [1, 3, 224, 224]}]}, 422, "[N,224,224,3]"),
    ({"inputs": [IMAGES | {"shape": [True, 224, 224, 3]}]}, 422, "[N,224,224,3]"),
    ({"inputs": [IMAGES | {"shape": [-1, 224, 224, 3]}]}, 422, "[N,224,224,3]"),
    ({"inputs": [IMAGES | {"shape": [224, 224, 3]}]}, 422, "axes"),
    ({"inputs": [IMAGES | {"shape": [1] * 1000}]}, 422, "axes"),
    ({"inputs": [IMAGES | {"shape": [0, 224, 224, 3]}]}, 400, "no image"),
    ({"inputs": [IMAGES | {"shape": [33, 224, 224, 3]}]}, 413, "33 images"),
    ({"inputs": [IMAGES | {"shape": [10**30, 224, 224, 3]}]}, 413, "images"),
    ({"inputs": [IMAGES]}, 422, "numbers of shape"),
    ({"inputs": [IMAGES | {"data": [7] * 1000}]}, 422, "another shape"),
    ({"inputs": [IMAGES | {"data": None}]}, 422, "numbers of shape"),
    ({"inputs": [IMAGES | {"parameters": {"binary_data_size": 4}}]}, 400, "0 bytes follow"),
    ({"inputs": [IMAGES | {"parameters": []}]}, 422, "parameters"),
    ({"inputs": [tensor("images", "UINT8", [1, 224, 224, 3])]}, 400, "neither data"),
    ({"inputs": [GOOD | {"shape": [2]}]}, 422, "2 strings"),
    ({"inputs": [GOOD | {"shape": [1, 1]}]}, 422, "[N]"),
    ({"inputs": [GOOD | {"data": ["no base64"]}]}, 422, "encoded[0]"),
    ({"inputs": [GOOD | {"data": [""]}]}, 400, "encoded[0]"),
    ({"inputs": [GOOD | {"data": [7]}]}, 422, "encoded[0]"),
    ({"inputs": [GOOD | {"data": ["http://flowers.example/a.jpg"]}]}, 422, "fetches nothing"),
    ({"inputs": [GOOD | {"data": [base64.b64encode(b"%PDF-1.7 text").decode()]}]}, 415, "PDF"),
    ({"inputs": [GOOD], "id": 7}, 422, "id is"),
    ({"inputs": [GOOD], "id": "x" * 2000}, 422, "id is"),
    ({"inputs": [GOOD], "outputs": "probabilities"}, 422, "outputs"),
    ({"inputs": [GOOD], "outputs": [{"name": "logits"}]}, 422, "'probabilities'"),
    ({"inputs": [GOOD], "outputs": [{"name": "probabilities"}] * 2}, 422, "once"),
    ({"inputs": [GOOD], "outputs": [{"name": "probabilities", "parameters": {"classification": 6}}]}, 422, "1 to 5"),
    ({"inputs": [GOOD], "outputs": [{"name": "probabilities", "parameters": {"classification": 0}}]}, 422, "1 to 5"),
    ({"inputs": [GOOD], "outputs": [{"name": "probabilities", "parameters": {"classification": "2"}}]}, 422, "integer"),
    ({"inputs": [GOOD], "parameters": {"binary_data_output": "yes"}}, 422, "boolean"),
]  # fmt: skip


async def test_requests_of_another_form_are_refused(service: Running) -> None:
    for document, status, words in REFUSED:
        response = await service.client.post(INFER, json=document)
        assert (response.status_code, list(response.json())) == (status, ["error"]), str(document)[:200]
        assert words in response.json()["error"]
    assert service.service.admission.num_bytes == 0


async def test_json_without_numbers_is_malformed(service: Running) -> None:
    for text in ("", "{", '{"inputs": [], "inputs": []}', '{"inputs": [{"data": [NaN]}]}', "[" * 17 + "]" * 17):
        response = await service.client.post(INFER, content=text)
        assert (response.status_code, list(response.json())) == (400, ["error"])


async def test_an_id_that_no_answer_can_hold_is_malformed(service: Running) -> None:
    for request_id in ("\ud800", "x" * 100 + "\udfff"):
        response = await service.client.post(INFER, content=json.dumps({"inputs": [GOOD], "id": request_id}))
        assert response.status_code == 400
        assert "half of a surrogate pair" in response.json()["error"]


async def test_binary_lengths_must_agree(service: Running) -> None:
    pixels, shape = PIXELS.tobytes(), list(PIXELS.shape)
    floats = np.full(shape, 255.4, "<f4").tobytes()
    good = binary_request("images", "UINT8", shape, pixels)
    sizes = {"binary_data_size": len(pixels)}
    document = {"inputs": [images_tensor(PIXELS, parameters=sizes)]}
    header = "Inference-Header-Content-Length"
    for request, status in (
        (pack(document, pixels[:-1]), 400),
        (pack(document, pixels + b"0"), 400),
        (pack({"inputs": [images_tensor(PIXELS, parameters={"binary_data_size": 7})]}, pixels), 400),
        (pack({"inputs": [images_tensor(PIXELS)]}, b"0"), 400),
        (pack({"inputs": [images_tensor(PIXELS, parameters=sizes, data=[])]}, pixels), 422),
        (good | {"headers": {header: "0"}}, 400),
        (good | {"headers": {header: "-1"}}, 400),
        (good | {"headers": {header: "9" * 400}}, 400),
        (good | {"headers": {header: "12"}}, 400),
        (good | {"headers": {}}, 400),
        (binary_request("images", "UINT8", shape, pixels[1:]), 400),
        (binary_request("images_fp32", "FP32", shape, floats), 422),
        (binary_request("encoded", "BYTES", [1], b"\1\0\0\0"), 400),
        (binary_request("encoded", "BYTES", [1], b"\1\0"), 400),
        (binary_request("encoded", "BYTES", [1], b"\0\0\0\0"), 400),
        (binary_request("encoded", "BYTES", [1], b"\xff\xff\xff\xff..."), 400),
        (binary_request("encoded", "BYTES", [1], bytes_tensor(*PHOTOS)), 400),
        (binary_request("encoded", "BYTES", [1], bytes_tensor(PHOTOS[0][:900])), 422),
    ):
        response = await service.client.post(INFER, **request)
        assert (response.status_code, list(response.json())) == (status, ["error"]), str(request)[:200]


async def test_compression_is_refused_with_the_option(service: Running) -> None:
    response = await service.client.post(INFER, content=b"...", headers={"Content-Encoding": "gzip"})
    assert response.status_code == 415
    assert "request_compression_algorithm" in response.json()["error"]


async def test_any_content_type_is_taken(service: Running) -> None:
    body = json.dumps({"inputs": [GOOD]})
    for headers in ({}, OCTETS, {"Content-Type": "text/plain"}):
        assert (await service.client.post(INFER, content=body, headers=headers)).status_code == 200


async def test_limits_of_images_hold_for_tensors(store: Path, loader: Loader) -> None:
    async with running(store, loader, max_batch_size=2, max_image_bytes=10_000, max_batch_bytes=15_000) as service:
        for request in (
            binary_request("encoded", "BYTES", [3], bytes_tensor(*PHOTOS, PHOTOS[0])),
            binary_request("encoded", "BYTES", [1], bytes_tensor(bytes(10_001))),
            binary_request("encoded", "BYTES", [2], bytes_tensor(bytes(8_000), bytes(8_000))),
        ):
            assert (await service.client.post(INFER, **request)).status_code == 413


async def test_the_switch_turns_the_routes_off(store: Path, loader: Loader) -> None:
    async with running(store, loader, open_inference=False) as service:
        response = await service.client.get("/v2")
        assert (response.status_code, response.headers["content-type"]) == (404, "application/problem+json")


async def test_a_client_s_timeout_holds(service: Running, loader: Loader) -> None:
    loader.engines[1].hold()
    response = await service.client.post(INFER, json={"inputs": [GOOD]}, headers={"X-Request-Timeout-Ms": "50"})
    assert (response.status_code, list(response.json())) == (504, ["error"])
