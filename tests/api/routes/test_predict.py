"""What is said of answers is said by the real engine, on a version that was really trained and exported."""

import asyncio
import base64
import shutil
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from unittest.mock import AsyncMock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from structlog.testing import capture_logs
from support.drawing import CLASS_NAMES, draw_photograph, encode
from support.exporting import export_tiny_version
from support.fakes import FakeEngine, Loader
from support.heic import HEIC, needs_library
from support.running import Running, running
from support.versions import publish_example

from service.imaging.decode import decode_image
from service.imaging.resize import resize
from service.inference.predictor import Classified, Timings

pytestmark = pytest.mark.anyio

JPEG = {"Content-Type": "image/jpeg"}
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
PHOTOS = [encode(draw_photograph(class_index, seed=300)) for class_index in range(5)]
FILES = [encode(draw_photograph(0, seed=301, size=(64, 48)), image_format) for image_format in FORMATS]


ENGINES = [("savedmodel", "auto"), ("onnxruntime", "float32"), ("onnxruntime", "int8")]


@pytest.fixture(scope="module", params=ENGINES, ids="-".join)
async def service(request: pytest.FixtureRequest, tiny_version: Path) -> AsyncIterator[Running]:
    engine, precision = request.param
    settings = {"engine": engine, "precision": precision}
    async with running(tiny_version, max_batch_size=4, access_log=False, **settings) as service:
        yield service


async def predict(service: Running, photo: bytes, **parameters: Any) -> dict[str, Any]:
    response = await service.client.post("/predict", content=photo, headers=JPEG, params=parameters)
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


def probabilities_of(answer: dict[str, Any]) -> list[float]:
    """In the order of the class names."""
    by_label = {score["label"]: score["probability"] for score in answer["predictions"]}
    return [by_label[label] for label in CLASS_NAMES]


async def test_each_flower_is_recognised_in_forms_and_raw_bodies(
    service: Running,
) -> None:
    for label, photo in zip(CLASS_NAMES, PHOTOS, strict=True):
        form = (await service.client.post("/predict", files={"file": ("flower.jpg", photo)})).json()
        raw = await predict(service, photo)
        assert form["label"] == raw["label"] == label
        assert form["predictions"] == raw["predictions"]


async def test_an_answer_has_the_shape_that_was_promised(service: Running) -> None:
    response = await service.client.post("/predict", content=PHOTOS[2], headers={**JPEG, "X-Request-ID": "r-1"})
    answer = response.json()
    assert answer.keys() == {"request_id", "model", "label", "probability", "confident", "predictions"}
    assert (answer["request_id"], answer["model"]) == ("r-1", {"name": "flowers", "version": 1})
    assert answer["confident"] is True
    assert answer["predictions"][0] == {"label": answer["label"], "probability": answer["probability"]}
    probabilities = [score["probability"] for score in answer["predictions"]]
    assert probabilities == sorted(probabilities, reverse=True)
    assert sum(probabilities) == pytest.approx(1, abs=1e-5)
    stages = [stage.split(";dur=") for stage in response.headers["server-timing"].split(", ")]
    assert [name for name, _ in stages] == ["decode", "queue", "infer"]
    assert all(float(duration_ms) >= 0 for _, duration_ms in stages)


async def test_top_k_cuts_the_list_and_nothing_else(service: Running) -> None:
    everything = await predict(service, PHOTOS[1])
    assert len(everything["predictions"]) == 5
    for top_k in (1, 2, 5):
        answer = await predict(service, PHOTOS[1], top_k=top_k)
        assert answer["predictions"] == everything["predictions"][:top_k]


@pytest.mark.parametrize(
    ("limits", "reason"),
    [
        ({"confidence_threshold": 1, "format": 1}, "low-probability"),
        ({"confidence_threshold": 1, "max_energy": 0, "max_distance": 1}, "low-probability"),
        ({"confidence_threshold": 1, "max_energy": -1}, "unlike-training"),
        ({"max_distance": -1}, "unlike-training"),
        ({"max_energy": 0, "max_distance": 1}, None),
    ],
)
async def test_an_answer_gives_its_reason_for_doubt(
    tmp_path: Path, loader: Loader, limits: dict[str, Any], reason: str | None
) -> None:
    publish_example(tmp_path, **limits)
    async with running(tmp_path, loader) as service:
        answer = await predict(service, PHOTOS[0])
    assert answer["confident"] == (reason is None)
    assert ("reason" in answer, answer.get("reason")) == (reason is not None, reason)


async def test_an_answer_has_the_engine_s_very_probabilities(
    service: Running,
) -> None:
    assert service.service.live_model.current is not None
    for photo in PHOTOS:
        scores = service.service.live_model.current.engine.run(resize(decode_image(photo))[np.newaxis])
        served = np.array(probabilities_of(await predict(service, photo)), np.float32)
        np.testing.assert_array_equal(served, scores.probabilities[0])


async def test_a_photo_scores_the_same_alone_and_in_company(service: Running) -> None:
    alone = [probabilities_of(await predict(service, photo)) for photo in PHOTOS]
    together = await asyncio.gather(*[predict(service, photo) for photo in PHOTOS * 4])
    for index, answer in enumerate(together):
        np.testing.assert_allclose(probabilities_of(answer), alone[index % 5], atol=1e-5)


@pytest.mark.parametrize("image_format", FORMATS)
async def test_every_accepted_format_is_answered(service: Running, image_format: str) -> None:
    photo = encode(draw_photograph(4, seed=302), image_format)
    assert (await predict(service, photo))["label"] == "tulips"


ORIENTED = (
    None, Image.Transpose.FLIP_LEFT_RIGHT, Image.Transpose.ROTATE_180, Image.Transpose.FLIP_TOP_BOTTOM,
    Image.Transpose.TRANSPOSE, Image.Transpose.ROTATE_90, Image.Transpose.TRANSVERSE, Image.Transpose.ROTATE_270,
)  # fmt: skip
"""How a camera that writes orientation 1, 2, ... 8 into its notes has stored an upright photograph."""


async def test_all_eight_orientations_score_alike(service: Running) -> None:
    upright = draw_photograph(3, seed=303, size=(640, 480))
    expected = probabilities_of(await predict(service, encode(upright, quality=95)))
    for orientation, transpose in enumerate(ORIENTED, start=1):
        exif = Image.Exif()
        exif[0x0112] = orientation
        stored = upright if transpose is None else upright.transpose(transpose)
        photo = encode(stored, quality=95, exif=exif)
        form = (await service.client.post("/predict", files={"file": ("flower.jpg", photo)})).json()
        for answer in (form, await predict(service, photo)):
            assert answer["label"] == "sunflowers"
            np.testing.assert_allclose(probabilities_of(answer), expected, atol=0.02)


@st.composite
def hostile_files(draw: st.DrawFn) -> bytes:
    """A drawn image with some bytes changed, many of them in its header, and perhaps cut short."""
    file = bytearray(draw(st.sampled_from(FILES)))
    positions = st.integers(0, len(file) - 1) | st.integers(0, 40)
    for position, byte in draw(st.lists(st.tuples(positions, st.integers(0, 255)), max_size=8)):
        file[position] = byte
    return bytes(file[: draw(st.just(len(file)) | st.integers(1, len(file)))])


@settings(deadline=None, max_examples=150)
@given(hostile_files())
async def test_hostile_bytes_never_give_a_500(service: Running, file: bytes) -> None:
    response = await service.client.post("/predict", content=file, headers=JPEG)
    assert response.status_code in (200, 413, 415, 422), response.text


@pytest.mark.slow
async def test_no_request_fails_while_a_new_version_takes_over(tiny_version: Path, tmp_path: Path) -> None:
    store = tmp_path / "model_store"
    shutil.copytree(tiny_version, store)
    async with running(store, max_batch_size=2, access_log=False) as service:

        async def visit() -> list[int]:
            versions: list[int] = []
            while 2 not in versions:
                versions.append((await predict(service, PHOTOS[0]))["model"]["version"])
            return versions

        visitors = [asyncio.create_task(visit()) for _ in range(3)]
        export_tiny_version(store)
        await service.look()
        seen = await asyncio.gather(*visitors)
    # In order for each visitor; between them, one that began under version 1 may be answered last.
    for versions in seen:
        assert versions == sorted(versions)
    assert {version for versions in seen for version in versions} == {1, 2}


TEXT = base64.b64encode(PHOTOS[2]).decode()


@pytest.mark.parametrize("text", [TEXT, f"data:image/jpeg;base64,{TEXT}"])
async def test_json_gets_the_answer_of_the_image(service: Running, text: str) -> None:
    expected = await predict(service, PHOTOS[2], top_k=2)
    for document, query in (({"image": text, "top_k": 2}, {}), ({"image": text}, {"top_k": 2})):
        response = await service.client.post("/predict", json=document, params=query)
        assert response.status_code == 200, response.text
        assert response.json() | {"request_id": ""} == expected | {"request_id": ""}


@pytest.mark.parametrize(
    ("body", "status", "name"),
    [
        (b'{"image": "%b"' % TEXT.encode(), 400, "malformed-request"),
        (b"\xff\xd8\xff", 400, "malformed-request"),
        (b'{"image": "QUJD", "image": "QUJD"}', 400, "malformed-request"),
        (b'{"top_k": 2}', 400, "missing-image"),
        (b'{"image": ""}', 400, "missing-image"),
        (b"", 400, "missing-image"),
        (b'{"image": "QUJD", "topk": 2}', 422, "invalid-parameter"),
        (b'{"image": "QUJD", "top_k": "2"}', 422, "invalid-parameter"),
        (b'{"image": "QUJD", "top_k": 6}', 422, "invalid-parameter"),
        (b'{"image": 7}', 422, "invalid-parameter"),
        (b'"QUJD"', 422, "invalid-parameter"),
        (b'{"image": "QUI"}', 422, "invalid-image"),
        (b'{"image": "http://localhost/photo.jpg"}', 422, "invalid-image"),
        (b'{"image": "QUJD"}', 415, "unsupported-image-format"),
        (b'{"image": "%b"}' % (b"A" * 150_000), 413, "body-too-large"),
        (b'{"image": "%b"}' % (b"A" * 300_000), 413, "body-too-large"),
    ],
)
async def test_wrong_json_is_answered_with_its_problem(
    store: Path, loader: Loader, body: bytes, status: int, name: str
) -> None:
    async with running(store, loader, max_image_bytes=100_000) as service:
        headers = {"Content-Type": "Application/JSON; charset=utf-8"}
        response = await service.client.post("/predict", content=body, headers=headers)
    assert (response.status_code, response.json()["type"]) == (status, f"/problems/{name}"), response.text
    assert response.headers["content-type"] == "application/problem+json"


async def test_the_largest_image_fits_as_json(store: Path, loader: Loader) -> None:
    photo = PHOTOS[0] + bytes(100_000 - len(PHOTOS[0]))
    async with running(store, loader, max_image_bytes=100_000) as service:
        response = await service.client.post("/predict", json={"image": base64.b64encode(photo).decode()})
        assert (response.status_code, service.service.admission.num_bytes) == (200, 0)


async def endless() -> AsyncIterator[bytes]:
    yield b"\xff\xd8"
    await asyncio.Event().wait()


async def test_without_a_model_no_body_is_awaited(tmp_path: Path) -> None:
    async with running(tmp_path, Loader()) as service, asyncio.timeout(60):
        response = await service.client.post("/predict", content=endless(), headers=JPEG)
    assert (response.status_code, response.json()["type"]) == (503, "/problems/not-ready")


async def test_with_a_wrong_top_k_no_body_is_awaited(store: Path, loader: Loader) -> None:
    async with running(store, loader) as service, asyncio.timeout(60):
        response = await service.client.post("/predict", content=endless(), headers=JPEG, params={"top_k": 6})
    assert (response.status_code, response.json()["type"]) == (422, "/problems/invalid-parameter")


async def test_server_timing_tells_waiting_from_computing(
    store: Path, loader: Loader, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(store, loader) as service:
        version = service.service.predictor.require()
        classified = Classified(
            version, np.full(5, 0.2, np.float32), Timings(decode_s=0.001, queue_s=0.02, infer_s=0.3, ended_at=9.0)
        )
        monkeypatch.setattr(service.service.predictor, "classify", AsyncMock(return_value=classified))
        with capture_logs() as events:
            response = await service.client.post("/predict", content=PHOTOS[0], headers=JPEG)
    assert response.headers["server-timing"] == "decode;dur=1.0, queue;dur=20.0, infer;dur=300.0"
    assert [(event["decode_ms"], event["queue_ms"], event["infer_ms"]) for event in events] == [(1.0, 20.0, 300.0)]


async def test_confident_follows_the_version_s_threshold(tmp_path: Path) -> None:
    engine = FakeEngine()
    for threshold, is_confident in ((0.99, False), (0.2, True)):
        store = tmp_path / str(threshold)
        publish_example(store, confidence_threshold=threshold)
        loader = Loader()
        loader.engines[1] = engine
        async with running(store, loader) as service:
            answer = await predict(service, PHOTOS[0])
        assert 0.2 < answer["probability"] < 0.99
        assert answer["confident"] is is_confident


@needs_library
async def test_heic_is_scored_as_its_pixels_are(service: Running) -> None:
    pixels = Image.fromarray(decode_image(HEIC["turned"]).pixels)
    answer, expected = await predict(service, HEIC["turned"]), await predict(service, encode(pixels, "PNG"))
    np.testing.assert_allclose(probabilities_of(answer), probabilities_of(expected), atol=1e-6)


async def test_heic_without_its_library_is_unsupported(service: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pi_heif", None)
    response = await service.client.post("/predict", content=HEIC["rgb"], headers={"Content-Type": "image/heic"})
    assert (response.status_code, response.json()["type"]) == (415, "/problems/unsupported-image-format")
    assert "a HEIC photograph. This installation cannot read it. Send the image itself, as JPEG" in response.text
