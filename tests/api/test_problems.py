"""Every kind of problem that a request can meet, met over HTTP."""

import asyncio
import inspect
import math
from collections.abc import AsyncIterator, Coroutine
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import httpx
import pytest
from PIL import Image, ImageFile
from structlog.testing import capture_logs
from support.drawing import draw_photograph, encode
from support.fakes import Loader
from support.running import Running, running

from service import errors
from service.api.problems import INTERNAL_ERROR, MEDIA_TYPE, PROBLEMS, find
from service.inference.admission import Ticket
from service.inference.predictor import Classified

pytestmark = pytest.mark.anyio

PHOTO = encode(draw_photograph(0, seed=1))
JPEG = {"Content-Type": "image/jpeg"}


def form(*photos: bytes, field: str = "file") -> dict[str, Any]:
    return {"files": [(field, ("photo.jpg", photo)) for photo in photos]}


def raw(body: bytes, content_type: str = "image/jpeg", **headers: str) -> dict[str, Any]:
    return {"content": body, "headers": {"Content-Type": content_type, **headers}}


HUGE = encode(Image.new("RGB", (2001, 1000)), "PNG")
"""Two million pixels and a thousand in few bytes."""


REFUSED = [
    ("malformed-request", 400, raw(b"no boundary", "multipart/form-data")),
    ("malformed-request", 400, raw(b"no boundary", "multipart/form-data; boundary=")),
    ("malformed-request", 400, raw(b"no boundary", f"multipart/form-data; boundary={'b' * 300}")),
    ("malformed-request", 400, raw(b"not multipart", "multipart/form-data; boundary=b")),
    ("malformed-request", 400, raw(b'--b\r\nContent-Disposition: form-data; name="file"\r\n\r\n' + PHOTO,
                                   "multipart/form-data; boundary=b")),
    ("malformed-request", 400, form(*[PHOTO[:10]] * 33, field="other")),
    ("missing-image", 400, {}),
    ("missing-image", 400, raw(b"")),
    ("missing-image", 400, form(PHOTO, field="image")),
    ("missing-image", 400, form(b"")),
    ("body-too-large", 413, raw(bytes(100_001))),
    ("body-too-large", 413, form(bytes(100_001))),
    ("image-too-large", 413, raw(HUGE)),
    ("too-many-images", 413, form(PHOTO, PHOTO)),
    ("unsupported-image-format", 415, raw(b"%PDF-1.7 and so on")),
    ("unsupported-media-type", 415, raw(b"photo=a.jpg", "application/x-www-form-urlencoded")),
    ("unsupported-media-type", 415, raw(b"{}", "application/xml")),
    ("unsupported-encoding", 415, raw(PHOTO, **{"Content-Encoding": "gzip"})),
    ("invalid-image", 422, raw(PHOTO[:2000])),
    ("invalid-parameter", 422, {**raw(PHOTO), "params": {"top_k": 0}}),
    ("invalid-parameter", 422, {**raw(PHOTO), "params": {"top_k": 6}}),
    ("invalid-parameter", 422, {**raw(PHOTO), "params": {"top_k": "many"}}),
    ("invalid-parameter", 422, {**raw(PHOTO), "params": {"top_k": [2, 3]}}),
    ("invalid-parameter", 422, {**raw(PHOTO), "params": {"topk": 2}}),
    ("invalid-parameter", 422, {**raw(PHOTO), "params": {"top_k": 2, "": ""}}),
    ("invalid-parameter", 422, {**form(PHOTO), "data": {"top_k": "0"}}),
    ("invalid-parameter", 422, {**form(PHOTO), "data": {"top_k": "6"}}),
    ("invalid-parameter", 422, {**form(PHOTO), "data": {"top_k": "many" * 1000}}),
    ("invalid-parameter", 422, {**form(PHOTO), "data": {"top_k": ["2", "3"]}}),
    ("invalid-parameter", 422, {**form(PHOTO), "data": {"top_k": "2"}, "params": {"top_k": 3}}),
    ("invalid-parameter", 422, raw(PHOTO, **{"X-Request-Timeout-Ms": "0"})),
    ("invalid-parameter", 422, raw(PHOTO, **{"X-Request-Timeout-Ms": "soon"})),
]  # fmt: skip


@pytest.fixture
async def service(store: Path, loader: Loader) -> AsyncIterator[Running]:
    async with running(store, loader, max_image_bytes=100_000, max_image_pixels=2_000_000, max_queue_size=1) as service:
        yield service


def check(response: httpx.Response, name: str, status: int) -> dict[str, Any]:
    """It is this problem, in the form that RFC 9457 and the design ask for."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == MEDIA_TYPE
    body: dict[str, Any] = response.json()
    assert body["type"] == f"/problems/{name}"
    assert body["title"] == PROBLEMS[name].title
    assert body["status"] == status
    assert body["request_id"] == response.headers["x-request-id"]
    assert len(body["detail"]) > 20
    for secret in ("Traceback", "/work", "/tmp", "PIL", "Pillow", "python", "starlette", "pydantic"):
        assert secret not in body["detail"]
    return body


@pytest.mark.parametrize(("name", "status", "request_arguments"), REFUSED)
async def test_each_bad_request_gets_its_problem(
    service: Running, name: str, status: int, request_arguments: dict[str, Any]
) -> None:
    response = await service.client.post("/predict", **request_arguments)
    check(response, name, status)
    good = await service.client.post("/predict", content=PHOTO, headers=JPEG)
    assert good.status_code == 200


async def test_an_unknown_path_model_or_problem_is_not_found(service: Running) -> None:
    for path in (
        "/nothing",
        "/predict//",
        "/models/orchids",
        "/models/..%2f..",
        "/problems/none",
        "/docs/x.js",
    ):
        check(await service.client.get(path), "not-found", 404)


@pytest.mark.parametrize("name", ["topk", "top-k", "TOP_K", "k", "limit", "\u00e9", "x" * 1000])
async def test_an_unknown_parameter_is_refused_with_the_nearest(service: Running, name: str) -> None:
    body = check(await service.client.post("/predict", **form(PHOTO), params={name: 2}), "invalid-parameter", 422)
    assert "The nearest is 'top_k'" in body["detail"]
    assert len(body["detail"]) < 300


async def test_a_wrong_method_is_told_the_right_one(service: Running) -> None:
    response = await service.client.get("/predict")
    check(response, "method-not-allowed", 405)
    assert response.headers["allow"] == "POST"
    for path in ("/livez", "/models", "/docs", "/openapi.json", "/metrics"):
        response = await service.client.delete(path)
        check(response, "method-not-allowed", 405)
        assert response.headers["allow"] == "GET, HEAD"
        assert (await service.client.head(path)).status_code == 200


async def test_bodies_in_arrival_are_bounded_together(store: Path, loader: Loader) -> None:
    """Each is within its limit; the one that would go over the common one is refused, the others go on."""
    arrived = [asyncio.Event() for _ in range(3)]
    go_on = asyncio.Event()

    async def body(number: int) -> AsyncIterator[bytes]:
        yield PHOTO[:1000]
        arrived[number].set()
        await go_on.wait()
        yield PHOTO[1000:]

    async with running(store, loader, max_image_bytes=100_000, max_queue_bytes=100_000) as service:
        assert len(PHOTO) < 50_000
        slow = [
            asyncio.create_task(service.client.post("/predict", content=body(number), headers=JPEG))
            for number in range(3)
        ]
        for event in arrived:
            await event.wait()
        assert service.service.admission.num_bytes == 3000
        check(await service.client.post("/predict", content=bytes(98_000), headers=JPEG), "overloaded", 429)
        go_on.set()
        assert [(await answer).status_code for answer in slow] == [200] * 3
        assert service.service.admission.num_bytes == 0


async def test_an_unannounced_large_body_is_refused_while_it_streams(
    service: Running,
) -> None:
    num_chunks = 0

    async def body() -> AsyncIterator[bytes]:
        nonlocal num_chunks
        while num_chunks < 1000:
            num_chunks += 1
            yield bytes(1000)

    response = await service.client.post("/predict", content=body(), headers=JPEG)
    check(response, "body-too-large", 413)


async def test_a_slow_body_is_given_up(store: Path, loader: Loader) -> None:
    async def body() -> AsyncIterator[bytes]:
        yield PHOTO[:100]
        await gave_up.wait()

    gave_up = asyncio.Event()
    async with running(store, loader, body_timeout_s=0.01) as service:
        asyncio.get_running_loop().call_later(0.05, gave_up.set)
        response = await service.client.post("/predict", content=body(), headers=JPEG)
    check(response, "body-too-slow", 408)


async def test_a_full_queue_is_answered_with_retry_after(service: Running, loader: Loader) -> None:
    loader.engines[1].hold()
    accepted = []
    for num_accepted in (1, 2):  # one in the lane, one waiting
        accepted.append(asyncio.create_task(service.client.post("/predict", content=PHOTO, headers=JPEG)))
        while service.service.admission.num_images < num_accepted or not loader.engines[1].batches:
            await asyncio.sleep(0)
    response = await service.client.post("/predict", content=PHOTO, headers=JPEG)
    check(response, "overloaded", 429)
    assert response.headers["retry-after"] == "1"
    metrics = (await service.client.get("/metrics")).text
    assert 'flowers_requests_total{method="POST",route="/predict",status="429"} 1.0' in metrics
    assert 'flowers_problems_total{type="overloaded"} 1.0' in metrics
    loader.engines[1].release()
    assert [(await call).status_code for call in accepted] == [200, 200]


async def test_without_a_model_predictions_and_probes_say_not_ready(tmp_path: Path) -> None:
    async with running(tmp_path / "model_store", Loader()) as service:
        for response in (
            await service.client.post("/predict", content=PHOTO, headers=JPEG),
            await service.client.get("/readyz"),
            await service.client.get("/startupz"),
        ):
            detail = check(response, "not-ready", 503)["detail"]
            assert "model_store/flowers" in detail
            assert detail.endswith(".")
            assert ".." not in detail
            assert response.headers["retry-after"] == "5"


async def test_a_drained_service_answers_probes_only(service: Running) -> None:
    await service.service.drain(delay_s=0, timeout_s=1)
    response = await service.client.post("/predict", content=PHOTO, headers=JPEG)
    check(response, "draining", 503)
    assert response.headers["retry-after"] == "5"
    assert check(await service.client.get("/readyz"), "draining", 503)["detail"] == "The service is shutting down."
    assert (await service.client.get("/livez")).status_code == 200


async def test_an_image_after_its_deadline_is_not_computed(service: Running, loader: Loader) -> None:
    loader.engines[1].hold()
    first = asyncio.create_task(service.client.post("/predict", content=PHOTO, headers=JPEG))
    while not loader.engines[1].batches:
        await asyncio.sleep(0)
    late = await service.client.post("/predict", content=PHOTO, headers={**JPEG, "X-Request-Timeout-Ms": "20"})
    check(late, "deadline-exceeded", 504)
    loader.engines[1].release()
    assert (await first).status_code == 200
    assert loader.engines[1].batches == [1]


async def test_a_client_s_timeout_cannot_exceed_the_server_s(store: Path, loader: Loader) -> None:
    loader.engines[1].hold()
    async with running(store, loader, request_timeout_s=0.02) as service:
        headers = {**JPEG, "X-Request-Timeout-Ms": "9" * 400}
        response = await service.client.post("/predict", content=PHOTO, headers=headers)
        check(response, "deadline-exceeded", 504)
        loader.engines[1].release()


async def test_a_deadline_of_the_caller_counts_the_upload(service: Running, loader: Loader) -> None:
    async def never_end() -> AsyncIterator[bytes]:
        yield PHOTO[:100]
        await asyncio.Event().wait()

    headers = {**JPEG, "X-Request-Timeout-Ms": "20"}
    response = await service.client.post("/predict", content=never_end(), headers=headers)
    assert "while the body arrived" in check(response, "deadline-exceeded", 504)["detail"]
    assert loader.engines[1].batches == []


@pytest.mark.parametrize("asked_ms", [None, "90000"])
async def test_the_server_s_deadline_begins_after_the_upload(
    service: Running, asked_ms: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = asyncio.get_running_loop().time
    arrived_at, deadlines = math.inf, []
    classify = service.service.predictor.classify

    async def dawdle() -> AsyncIterator[bytes]:
        nonlocal arrived_at
        yield PHOTO[:100]
        await asyncio.sleep(0.05)
        arrived_at = clock()
        yield PHOTO[100:]

    def note(image: bytes, ticket: Ticket, deadline: float) -> Coroutine[Any, Any, Classified]:
        deadlines.append(deadline)
        return classify(image, ticket, deadline)

    monkeypatch.setattr(service.service.predictor, "classify", note)
    headers = {**JPEG, "X-Request-Timeout-Ms": asked_ms} if asked_ms else JPEG
    assert (await service.client.post("/predict", content=dawdle(), headers=headers)).status_code == 200
    assert deadlines[0] >= arrived_at + service.service.request_timeout_s


async def test_a_failing_engine_s_cause_stays_in_the_log(service: Running, loader: Loader) -> None:
    loader.engines[1].error = RuntimeError("/opt/secret.so: CUDA_ERROR")
    with capture_logs() as events:
        response = await service.client.post("/predict", content=PHOTO, headers=JPEG)
    assert "secret" not in response.text
    check(response, "internal-error", 500)
    [event] = [event for event in events if event["event"] == "request failed"]
    assert event["request_id"] == response.headers["x-request-id"]
    assert "secret" in str(event["exc_info"])


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("can't start new thread")])
async def test_want_of_memory_is_a_503_everywhere(
    service: Running, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    for part, method in (("predictor", "classify"), ("predictor", "require"), ("admission", "request")):
        with monkeypatch.context() as patched:
            patched.setattr(getattr(service.service, part), method, Mock(side_effect=error))
            response = await service.client.post("/predict", content=PHOTO, headers=JPEG)
        check(response, "overloaded", 503)
        assert response.headers["retry-after"] == "1"
    assert (await service.client.post("/predict", content=PHOTO, headers=JPEG)).status_code == 200


async def test_want_of_memory_is_logged_without_a_stack(service: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service.service.predictor, "require", Mock(side_effect=MemoryError))
    with capture_logs() as events:
        response = await service.client.post("/predict", content=PHOTO, headers=JPEG)
    [event] = [event for event in events if event["event"] == "memory exhausted"]
    assert (event["log_level"], event["request_id"]) == ("warning", response.headers["x-request-id"])
    assert "exc_info" not in event


async def test_an_engine_without_memory_is_a_503(service: Running, loader: Loader) -> None:
    loader.engines[1].error = RuntimeError("std::bad_alloc")
    response = await service.client.post("/predict", content=PHOTO, headers=JPEG)
    check(response, "overloaded", 503)
    assert response.headers["retry-after"] == "1"
    explained = (await service.client.get("/problems/overloaded")).json()
    assert (explained["status"], "503" in explained["detail"]) == (429, True)


async def test_a_decoder_without_memory_is_a_503(service: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ImageFile.ImageFile, "load", Mock(side_effect=MemoryError))
    check(await service.client.post("/predict", content=PHOTO, headers=JPEG), "overloaded", 503)


async def test_bodies_take_at_most_half_of_the_memory(
    store: Path, loader: Loader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.api.app.memory_left", lambda: 300_000)
    async with running(store, loader, max_image_bytes=100_000) as service:
        with service.service.admission.request() as ticket:
            ticket.add_bytes(150_000)
            with pytest.raises(errors.QueueFull):
                ticket.add_bytes(1)
    monkeypatch.setattr("service.api.app.memory_left", lambda: 1)
    async with running(store, loader, max_image_bytes=100_000) as service:
        with service.service.admission.request() as ticket:
            ticket.add_bytes(100_000)  # one image always fits


async def test_an_exception_that_nobody_foresaw_is_a_500_too(service: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    async def surprise(*_: object, **__: object) -> None:
        raise ZeroDivisionError("secret")

    monkeypatch.setattr(service.service.predictor, "classify", surprise)
    with capture_logs() as events:
        response = await service.client.post("/predict", content=PHOTO, headers=JPEG)
    assert "secret" not in check(response, "internal-error", 500)["detail"]
    assert [event["event"] for event in events].count("request failed") == 1


def test_every_error_of_a_request_has_its_problem() -> None:
    """A failing engine is the service's own fault."""
    families = (errors.ImageError, errors.RequestError, errors.ServiceError)
    leaves = {
        error
        for _, error in inspect.getmembers(errors, inspect.isclass)
        if issubclass(error, families) and error not in families
    }
    assert {error for error in leaves if find(error) is INTERNAL_ERROR} == {errors.EngineFailed}


async def test_the_type_of_a_problem_explains_it(service: Running) -> None:
    for name, problem in PROBLEMS.items():
        response = await service.client.get(f"/problems/{name}")
        assert response.json()["title"] == problem.title
        assert response.json()["detail"].endswith(problem.advice)
