"""Batches: an answer for each image in order, half a queue at a time, and what spoils the whole."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from structlog.testing import capture_logs
from support.drawing import CLASS_NAMES, draw_photograph, encode
from support.fakes import Loader
from support.running import Running, running
from support.versions import publish_example
from support.wires import on_the_wire

from service.api.schemas import BatchBody

pytestmark = pytest.mark.anyio

PHOTOS = [encode(draw_photograph(class_index, seed=300)) for class_index in range(5)]
PHOTO = PHOTOS[0]
HUGE = encode(Image.new("RGB", (2001, 1000)), "PNG")
PATH = "/predict/batch"
FORM = {"Content-Type": "multipart/form-data; boundary=b"}
END = b"--b--\r\n"


def part(content: bytes, name: str = "file") -> bytes:
    return b'--b\r\nContent-Disposition: form-data; name="%b"\r\n\r\n%b\r\n' % (name.encode(), content)


def cut(*photos: bytes) -> tuple[bytes, bytes]:
    """A form in two pieces. The first image ends in the first one, which ends with the delimiter behind it."""
    form = b"".join(map(part, photos)) + END
    length = len(part(photos[0])) + len(b"--b\r\n")
    return form[:length], form[length:]


def files(*photos: bytes) -> list[tuple[str, tuple[str, bytes]]]:
    return [("file", ("photo.jpg", photo)) for photo in photos]


async def send(service: Running, *photos: bytes, **options: Any) -> list[dict[str, Any]]:
    """The results of a batch that is answered."""
    response = await service.client.post(PATH, files=files(*photos), **options)
    assert response.status_code == 200, response.text
    results: list[dict[str, Any]] = response.json()["results"]
    return results


def outcomes(results: list[dict[str, Any]]) -> list[str]:
    """The problem in each place, or the label."""
    problem_or_label = (result.get("problem", {}).get("type", result.get("label")) for result in results)
    return [str(one).removeprefix("/problems/") for one in problem_or_label]


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.001)


@pytest.fixture(scope="module")
async def real(tiny_version: Path) -> AsyncIterator[Running]:
    async with running(tiny_version, max_queue_size=8, max_batch_size=4, access_log=False) as service:
        yield service


@pytest.fixture
async def service(store: Path, loader: Loader) -> AsyncIterator[Running]:
    settings: dict[str, Any] = {
        "max_queue_size": 8,
        "max_image_bytes": 100_000,
        "max_image_pixels": 1_000_000,
        "max_batch_images": 20,
    }
    async with running(store, loader, max_batch_size=4, **settings) as service:
        yield service


async def test_each_image_has_its_answer_in_order(real: Running) -> None:
    results = await send(real, *PHOTOS * 5)
    assert [result["label"] for result in results] == list(CLASS_NAMES) * 5
    for result, photo in zip(results, PHOTOS, strict=False):
        alone = (await real.client.post("/predict", content=photo)).json()
        assert result.keys() - {"reason"} == {"label", "probability", "confident", "predictions"}
        by_label = {score["label"]: score["probability"] for score in alone["predictions"]}
        for score in result["predictions"]:
            assert score["probability"] == pytest.approx(by_label[score["label"]], abs=1e-5)


async def test_a_bad_image_spoils_only_its_own_place(service: Running) -> None:
    bad = [PHOTO[:2000], b"", b"no image", HUGE, bytes(100_001)]
    names = ["invalid-image", "missing-image", "unsupported-image-format", "image-too-large", "body-too-large"]
    results = await send(service, PHOTO, *bad, PHOTO)
    best = results[0]["label"]
    assert outcomes(results) == [best, *names, best]
    for result in results[1:-1]:
        assert result.keys() == {"problem"}
        assert result["problem"].keys() == {"type", "title", "status", "detail"}
    assert results[1]["problem"]["status"] == 422


async def test_the_answer_has_id_and_model_once(service: Running) -> None:
    response = await service.client.post(PATH, files=files(PHOTO), headers={"X-Request-ID": "r-1"})
    answer = response.json()
    assert answer.keys() == {"request_id", "model", "results"}
    assert (answer["request_id"], answer["model"]) == ("r-1", {"name": "flowers", "version": 1})
    assert response.headers["server-timing"].startswith("decode;dur=")


async def test_a_batch_is_counted_image_by_image(service: Running) -> None:
    with capture_logs() as events:
        await send(service, PHOTO, b"no image", PHOTO, b"no image either")
    lines = (await service.client.get("/metrics")).text.splitlines()
    assert f'flowers_requests_total{{method="POST",route="{PATH}",status="200"}} 1.0' in lines
    assert 'flowers_problems_total{type="unsupported-image-format"} 2.0' in lines
    assert "flowers_prediction_probability_count 2.0" in lines
    assert 'flowers_stage_duration_seconds_count{stage="infer"} 2.0' in lines
    assert "flowers_held_bytes 0.0" in lines
    [event] = events
    assert (event["path"], event["images"], event["problems"], event["model_version"]) == (PATH, 4, 2, 1)


@pytest.mark.parametrize("position", [0, 1, 3])
async def test_top_k_may_be_a_field_anywhere(service: Running, position: int) -> None:
    sent: list[tuple[str, Any]] = [*files(PHOTO, PHOTO), ("note", (None, "x"))]
    sent.insert(position, ("top_k", (None, "2")))
    response = await service.client.post(PATH, files=sent)
    assert [len(result["predictions"]) for result in response.json()["results"]] == [2, 2]


@pytest.mark.parametrize(
    ("name", "status", "request_"),
    [
        ("invalid-parameter", 422, {"params": {"top_k": 6}, "files": files(PHOTO)}),
        ("invalid-parameter", 422, {"params": {"topk": 2}, "files": files(PHOTO)}),
        ("invalid-parameter", 422, {"data": {"top_k": "6"}, "files": files(PHOTO)}),
        ("invalid-parameter", 422, {"data": {"top_k": "1"}, "params": {"top_k": 2}, "files": files(PHOTO)}),
        ("unsupported-media-type", 415, {"content": PHOTO, "headers": {"Content-Type": "image/jpeg"}}),
        ("unsupported-media-type", 415, {"content": PHOTO}),
        ("unsupported-encoding", 415, {"files": files(PHOTO), "headers": {"Content-Encoding": "gzip"}}),
        ("missing-image", 400, {}),
        ("missing-image", 400, {"files": [("image", ("a.jpg", PHOTO))]}),
        ("malformed-request", 400, {"content": part(PHOTO), "headers": FORM}),
        ("malformed-request", 400, {"content": b"no form", "headers": FORM}),
        ("malformed-request", 400, {"content": part(b"x", "note") * 60 + END, "headers": FORM}),
        ("too-many-images", 413, {"files": files(*[b"x"] * 21)}),
        ("body-too-large", 413, {"files": files(*[bytes(90_000)] * 12)}),
        ("body-too-large", 413, {"content": part(b"x", "note" * 50_000), "headers": FORM}),
    ],
)
async def test_problems_of_the_whole_have_their_own_status(
    store: Path, loader: Loader, name: str, status: int, request_: dict[str, Any]
) -> None:
    settings: dict[str, Any] = {
        "max_batch_images": 20,
        "max_batch_bytes": 1_000_000 if "files" in request_ else 100_000,
    }
    async with running(store, loader, **settings) as service:
        response = await service.client.post(PATH, **request_)
        assert (response.status_code, response.json()["type"]) == (status, f"/problems/{name}"), response.text
        assert response.json()["request_id"] == response.headers["X-Request-ID"]
        assert service.service.admission.num_bytes == service.service.admission.num_images == 0


async def test_other_methods_and_missing_keys_are_refused(store: Path, loader: Loader) -> None:
    async with running(store, loader, api_keys="a-key") as service:
        assert (await service.client.post(PATH, files=files(PHOTO))).status_code == 401
        key = {"X-API-Key": "a-key"}
        assert (await service.client.get(PATH, headers=key)).status_code == 405
        assert (await service.client.post(PATH, files=files(PHOTO), headers=key)).status_code == 200


async def test_a_lone_batch_is_never_overloaded(service: Running, loader: Loader) -> None:
    most = 0
    run, admission = loader.engines[1].run, service.service.admission

    def watched(images: Any) -> Any:
        nonlocal most
        most = max(most, admission.num_images)
        return run(images)

    loader.engines[1].run = watched  # type: ignore[method-assign]
    assert set(outcomes(await send(service, *[PHOTO] * 20))) == {"dandelion"}
    assert 1 < most <= 4  # half of the queue


@pytest.mark.parametrize("max_queue_size", [1, 2])
async def test_the_smallest_queue_takes_a_batch(store: Path, loader: Loader, max_queue_size: int) -> None:
    async with running(store, loader, max_queue_size=max_queue_size) as service:
        assert set(outcomes(await send(service, *[PHOTO] * 5))) == {"dandelion"}


async def test_a_batch_holds_half_of_the_bytes(store: Path, loader: Loader) -> None:
    """Its images together are larger than all that may wait. One chunk has all of them."""
    photo, large = PHOTO + bytes(40_000 - len(PHOTO)), PHOTO + bytes(150_000 - len(PHOTO))
    most = 0
    async with running(store, loader, max_queue_bytes=150_000, max_image_bytes=150_000) as service:
        admission = service.service.admission
        add = admission.add_bytes

        def watched(num_bytes: int) -> None:
            nonlocal most
            add(num_bytes)
            most = max(most, admission.num_bytes)

        admission.add_bytes = watched  # type: ignore[method-assign]
        for photos, limit in (
            ([photo] * 30, 75_000),
            ([large, large, photo], 150_000),
        ):  # one may fill it
            most = 0
            response = await service.client.post(PATH, content=b"".join(map(part, photos)) + END, headers=FORM)
            assert outcomes(response.json()["results"]) == ["dandelion"] * len(photos)
            assert limit / 2 < most <= limit


async def test_no_room_at_the_head_refuses_the_whole(service: Running) -> None:
    async def endless() -> AsyncIterator[bytes]:
        yield part(PHOTO)
        await asyncio.Event().wait()

    admission = service.service.admission
    places = [admission.image() for _ in range(8)]
    for place in places:
        place.__enter__()
    async with asyncio.timeout(10):
        response = await service.client.post(PATH, content=endless(), headers=FORM)
    assert (response.status_code, response.json()["type"]) == (429, "/problems/overloaded")
    assert response.headers["retry-after"] == "1"
    for place in places:
        place.__exit__(None, None, None)


async def test_a_queue_that_fills_spoils_later_places(service: Running, loader: Loader) -> None:
    engine, admission = loader.engines[1], service.service.admission
    filled = asyncio.Event()

    async def body() -> AsyncIterator[bytes]:
        first, rest = cut(PHOTO, PHOTO, PHOTO)
        yield first
        await filled.wait()
        yield rest

    engine.hold()
    batch = asyncio.create_task(service.client.post(PATH, content=body(), headers=FORM))
    await until(lambda: engine.batches)
    singles = [asyncio.create_task(service.client.post("/predict", content=PHOTO)) for _ in range(8)]
    await until(lambda: admission.num_waiting == 8)
    filled.set()
    await until(lambda: admission.num_requests == 9)
    await asyncio.sleep(0.05)  # the last images are refused meanwhile
    engine.release()
    results = (await batch).json()["results"]
    assert outcomes(results) == ["dandelion", "overloaded", "overloaded"]
    assert results[1]["problem"]["status"] == 429
    assert {(await single).status_code for single in singles} == {200}


async def test_what_is_late_is_late_in_its_place(service: Running, loader: Loader) -> None:
    """The batch is larger than what it may hold. So its end is read after the deadline."""
    engine = loader.engines[1]
    engine.hold()
    results = await send(service, *[PHOTO] * 9, b"no image", headers={"X-Request-Timeout-Ms": "200"})
    engine.release()
    assert set(outcomes(results)) == {"deadline-exceeded"}
    assert len(results) == 10


async def test_what_was_done_in_time_keeps_its_answer(service: Running, loader: Loader) -> None:
    engine = loader.engines[1]

    async def body() -> AsyncIterator[bytes]:
        first, rest = cut(PHOTO, PHOTO)
        yield first
        await until(lambda: engine.batches and not service.service.admission.num_images)
        engine.hold()
        yield rest

    headers = {**FORM, "X-Request-Timeout-Ms": "1000"}
    response = await service.client.post(PATH, content=body(), headers=headers)
    engine.release()
    assert outcomes(response.json()["results"]) == ["dandelion", "deadline-exceeded"]


async def test_a_body_that_outlasts_the_deadline_fails(service: Running) -> None:
    async def stalled() -> AsyncIterator[bytes]:
        yield part(PHOTO)
        await asyncio.Event().wait()

    headers = {**FORM, "X-Request-Timeout-Ms": "1"}
    response = await service.client.post(PATH, content=stalled(), headers=headers)
    assert (response.status_code, response.json()["type"]) == (504, "/problems/deadline-exceeded")


async def test_a_slow_body_fails_the_whole(store: Path, loader: Loader) -> None:
    async def stalled() -> AsyncIterator[bytes]:
        yield part(PHOTO)
        await asyncio.Event().wait()

    async with running(store, loader, body_timeout_s=0.1) as service:
        response = await service.client.post(PATH, content=stalled(), headers=FORM)
        assert (response.status_code, response.json()["type"]) == (408, "/problems/body-too-slow")
        assert service.service.admission.num_images == 0


async def test_the_body_s_clock_stands_while_images_wait(store: Path, loader: Loader) -> None:
    async with running(store, loader, body_timeout_s=0.2, max_queue_size=2) as service:
        loader.engines[1].hold()
        batch = asyncio.create_task(send(service, *[PHOTO] * 4))
        await until(lambda: loader.engines[1].batches)
        await asyncio.sleep(0.4)
        assert not batch.done()
        loader.engines[1].release()
        assert outcomes(await batch) == ["dandelion"] * 4


async def test_a_reload_names_the_version_of_a_place(service: Running, store: Path, loader: Loader) -> None:
    async def body() -> AsyncIterator[bytes]:
        first, rest = cut(PHOTO, PHOTO)
        yield first
        await until(lambda: loader.engines[1].batches)
        publish_example(store)
        await service.look()
        yield rest

    answer = (await service.client.post(PATH, content=body(), headers=FORM)).json()
    assert answer["model"]["version"] == 1
    assert [result.get("version") for result in answer["results"]] == [None, 2]


async def test_a_failing_engine_spoils_its_places(service: Running, loader: Loader) -> None:
    loader.engines[1].error = ZeroDivisionError()
    results = await send(service, PHOTO, PHOTO)
    assert outcomes(results) == ["internal-error"] * 2
    assert "ZeroDivision" not in json.dumps(results)


async def test_a_drain_answers_a_batch(service: Running, loader: Loader) -> None:
    loader.engines[1].hold()
    batch = asyncio.create_task(send(service, *[PHOTO] * 6))
    await until(lambda: loader.engines[1].batches)
    draining = asyncio.create_task(service.service.drain(0, 30))
    await asyncio.sleep(0)
    loader.engines[1].release()
    assert outcomes(await batch) == ["dandelion"] * 6
    assert await draining == 0


async def test_a_drain_that_ends_tells_the_batch(service: Running, loader: Loader) -> None:
    loader.engines[1].hold()
    batch = asyncio.create_task(service.client.post(PATH, files=files(*[PHOTO] * 6)))
    await until(lambda: loader.engines[1].batches)
    await service.service.drain(0, 0.01)
    answer = await batch
    assert (answer.status_code, answer.json()["type"]) == (503, "/problems/draining")
    assert service.service.admission.num_bytes == service.service.admission.num_images == 0
    loader.engines[1].release()


@pytest.mark.parametrize("has_ended", [True, False])
async def test_a_client_that_leaves_cancels_its_batch(service: Running, loader: Loader, has_ended: bool) -> None:
    engine, admission = loader.engines[1], service.service.admission
    body = part(PHOTO) * 3 + (END if has_ended else b"--b\r\n")
    head = b"POST /predict/batch HTTP/1.1\r\nHost: f\r\nContent-Type: multipart/form-data; boundary=b\r\n"
    engine.hold()
    async with on_the_wire(service) as wire:
        _, writer = await asyncio.open_connection("127.0.0.1", wire.port)
        writer.write(head + b"Content-Length: %d\r\n\r\n" % (len(body) + (not has_ended)) + body)
        await until(lambda: admission.num_images == 3 and engine.batches)
        writer.close()
        await until(lambda: not admission.num_requests)
        assert admission.num_images == admission.num_bytes == 0
        engine.release()
    lines = (await service.client.get("/metrics")).text.splitlines()
    assert f'flowers_requests_total{{method="POST",route="{PATH}",status="499"}} 1.0' in lines


async def test_a_batch_larger_than_the_queue_passes_a_socket(service: Running) -> None:
    """In chunks, beside lone requests on another connection."""
    photo = PHOTO + bytes(90_000 - len(PHOTO))
    async with on_the_wire(service) as wire:
        head = b"POST /predict/batch HTTP/1.1\r\nHost: f\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n"
        body = part(photo) * 20 + END
        chunks = b"".join(
            b"%x\r\n%b\r\n" % (len(body[at : at + 5000]), body[at : at + 5000]) for at in range(0, len(body), 5000)
        )
        request = head + b"Content-Type: multipart/form-data; boundary=b\r\n\r\n" + chunks + b"0\r\n\r\n"
        batch = asyncio.create_task(wire.send(request))
        for _ in range(5):
            assert (await service.client.post("/predict", content=PHOTO)).status_code == 200
        status, _, answer = await batch
    assert status == 200
    assert outcomes(json.loads(answer)["results"]) == ["dandelion"] * 20


async def test_the_document_describes_batches(service: Running) -> None:
    document = (await service.client.get("/openapi.json")).json()
    operation = document["paths"][PATH]["post"]
    schema = operation["requestBody"]["content"]["multipart/form-data"]["schema"]
    assert schema["properties"]["file"]["type"] == "array"
    assert {"200", "400", "408", "413", "415", "422", "429", "503", "504"} <= operation["responses"].keys()
    body = document["components"]["schemas"][BatchBody.__name__]
    assert body["example"]["results"][1]["problem"]["type"] == "/problems/invalid-image"
