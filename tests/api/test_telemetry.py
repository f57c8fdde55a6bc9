import asyncio
import time
import uuid
from collections import Counter
from collections.abc import AsyncIterator
from itertools import pairwise
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families
from structlog.testing import capture_logs
from support.drawing import draw_photograph, encode
from support.fakes import Loader
from support.running import Running, running
from support.versions import publish_example

from service.api.app import create_app
from service.api.metrics import Metrics
from service.api.protocols.protocol import Protocols
from service.api.telemetry import Recorder, Telemetry
from service.settings import ServeSettings

pytestmark = pytest.mark.anyio
PHOTO = encode(draw_photograph(0, seed=1))


@pytest.fixture
async def service(store: Path, loader: Loader) -> AsyncIterator[Running]:
    async with running(store, loader) as service:
        yield service


async def scrape(service: Running) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    text = (await service.client.get("/metrics")).text
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def key(name: str, /, **labels: str) -> tuple[str, tuple[tuple[str, str], ...]]:
    return name, tuple(sorted(labels.items()))


@pytest.mark.parametrize("request_id", ["a", "0193a5d4-7f2c", "order:17/photo#2", "x" * 128, "!~"])
async def test_a_short_printable_request_id_is_taken_over(service: Running, request_id: str) -> None:
    response = await service.client.post("/predict", content=PHOTO, headers={"X-Request-ID": request_id})
    assert response.headers["x-request-id"] == request_id
    assert response.json()["request_id"] == request_id


@pytest.mark.parametrize("request_id", [None, "", "x" * 129, "two words", "tab\there", "Bl\u00fcte", "nul\x00"])
async def test_any_other_request_id_is_replaced(service: Running, request_id: str | None) -> None:
    headers = {} if request_id is None else {b"X-Request-ID": request_id.encode("latin-1")}
    response = await service.client.get("/nothing", headers=headers)
    made = response.headers["x-request-id"]
    assert uuid.UUID(made).version == 7
    assert response.json()["request_id"] == made


async def test_requests_stages_batches_and_problems_are_counted(service: Running) -> None:
    for _ in range(3):
        assert (await service.client.post("/predict", content=PHOTO)).status_code == 200
    await service.client.post("/predict", content=b"no image")
    metrics = await scrape(service)
    assert metrics[key("flowers_requests_total", method="POST", route="/predict", status="200")] == 3
    assert metrics[key("flowers_requests_total", method="POST", route="/predict", status="415")] == 1
    assert metrics[key("flowers_problems_total", type="unsupported-image-format")] == 1
    assert metrics[key("flowers_request_duration_seconds_count", route="/predict", status="200")] == 3
    assert metrics[key("flowers_problems_total", type="overloaded")] == 0  # there before it happens
    assert sum(value for (name, _), value in metrics.items() if name == "flowers_predictions_total") == 3
    assert metrics[key("flowers_prediction_probability_bucket", le="+Inf")] == 3
    assert metrics[key("process_resident_memory_bytes")] > 1e6
    for stage in ("decode", "queue", "infer"):
        assert metrics[key("flowers_stage_duration_seconds_count", stage=stage)] == 3
    assert metrics[key("flowers_batch_size_images_sum")] == 3
    assert metrics[key("flowers_in_flight_requests")] == 1  # this scrape
    assert metrics[key("flowers_queue_images")] == 0


async def test_an_unanswered_prediction_is_not_counted(service: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.api.classification.rank", Mock(side_effect=ZeroDivisionError))
    assert (await service.client.post("/predict", content=PHOTO)).status_code == 500
    metrics = await scrape(service)
    assert metrics[key("flowers_prediction_probability_bucket", le="+Inf")] == 0


async def test_readiness_and_the_live_version_are_metrics(service: Running, store: Path) -> None:
    live = {"name": "flowers", "engine": "fake", "device": "cpu", "precision": "float32"}
    assert (await scrape(service))[key("flowers_model_info", version="1", **live)] == 1
    publish_example(store)
    await service.look()
    publish_example(store)
    (store / "flowers/3/saved_model.pb").write_bytes(b"another network")
    await service.look()
    metrics = await scrape(service)
    assert metrics[key("flowers_model_info", version="2", **live)] == 1
    assert key("flowers_model_info", version="1", **live) not in metrics
    assert (metrics[key("flowers_model_loads_total")], metrics[key("flowers_model_refusals_total")]) == (2, 1)
    assert metrics[key("flowers_ready")] == 1
    service.service.health.is_draining = True
    assert (await scrape(service))[key("flowers_ready")] == 0


def test_dropped_log_lines_are_a_metric(store: Path) -> None:
    app = create_app(ServeSettings(model_store=store), num_dropped_lines=lambda: 3)
    page = generate_latest(app.state.service.metrics.registry).decode()
    assert "flowers_log_dropped_total 3.0" in page.splitlines()


async def test_the_lag_of_the_event_loop_is_a_metric(service: Running) -> None:
    async def lag() -> tuple[float, float]:
        metrics = await scrape(service)
        at_most = metrics[key("flowers_event_loop_lag_seconds_bucket", le="0.1")]
        return metrics[key("flowers_event_loop_lag_seconds_count")], at_most

    while (await lag())[0] < 1:
        await asyncio.sleep(0.01)
    time.sleep(0.3)
    while (observed := await lag())[0] == observed[1]:
        await asyncio.sleep(0.01)


async def test_counters_under_load_agree_with_the_client(service: Running) -> None:
    async def visit() -> list[int]:
        bodies = [PHOTO if number % 5 else b"x" for number in range(25)]
        return [(await service.client.post("/predict", content=body)).status_code for body in bodies]

    visitors = [asyncio.create_task(visit()) for _ in range(8)]
    scrapes = [await scrape(service) for _ in range(50)]
    answers = [status for statuses in await asyncio.gather(*visitors) for status in statuses]
    scrapes.append(await scrape(service))
    gauges = ("flowers_in_flight_requests", "flowers_held_bytes", "flowers_queue_", "flowers_model_info",
              "flowers_ready", "process_")  # fmt: skip
    for earlier, later in pairwise(scrapes):
        for sample, value in earlier.items():
            assert sample[0].startswith(gauges) or later[sample] >= value, sample
    for status, count in Counter(answers).items():
        assert scrapes[-1][key("flowers_requests_total", method="POST", route="/predict", status=str(status))] == count
    assert Counter(answers) == {200: 160, 415: 40}
    assert scrapes[-1][key("flowers_stage_duration_seconds_count", stage="infer")] == 160
    assert scrapes[-1][key("flowers_batch_size_images_sum")] >= 160  # and perhaps the watchdog's own
    assert scrapes[-1][key("flowers_problems_total", type="unsupported-image-format")] == 40


async def test_labels_stay_few_whatever_is_asked_for(service: Running) -> None:
    await scrape(service)
    before = len(await scrape(service))
    for number in range(50):
        await service.client.request(f"METHOD{number}", f"/path-{number}?query={number}")
        await service.client.get(f"/models/model-{number}")
    added = len(await scrape(service)) - before
    await service.client.request("ANOTHER", "/and-another")
    assert len(await scrape(service)) - before == added


async def test_each_request_has_one_log_line(service: Running) -> None:
    with capture_logs() as events:
        response = await service.client.post("/predict", content=PHOTO)
    [line] = events
    assert line["event"] == "request"
    assert line["request_id"] == response.headers["x-request-id"]
    assert (line["method"], line["path"], line["status"], line["model_version"]) == (
        "POST",
        "/predict",
        200,
        1,
    )
    assert {"duration_ms", "decode_ms", "queue_ms", "infer_ms"} <= line.keys()


async def test_a_log_line_stays_short(service: Running) -> None:
    with capture_logs() as events:
        await service.client.get("/" + "x" * 10_000)
        await service.client.request("M" * 1000, "/livez")
    assert [len(event["path"]) for event in events] == [200, 6]
    assert len(events[1]["method"]) == 20


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_plain_route_is_counted_by_its_path(service: Running, method: str) -> None:
    status = (await service.client.request(method, "/predict/", content=PHOTO)).status_code
    metrics = await scrape(service)
    assert metrics[key("flowers_requests_total", method=method, route="/predict", status=str(status))] == 1


async def test_the_access_line_can_be_switched_off(store: Path, loader: Loader) -> None:
    async with running(store, loader, access_log=False) as service:
        with capture_logs() as events:
            await service.client.post("/predict", content=PHOTO)
        assert events == []


async def test_nothing_follows_half_an_answer() -> None:
    """Only a cut connection tells the client."""
    sent: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        raise ZeroDivisionError

    async def send(message: Any) -> None:
        sent.append(message["type"])

    scope = {"type": "http", "method": "GET", "path": "/", "headers": []}
    recorder = Recorder(Metrics(), access_log=False)
    telemetry = Telemetry(app, recorder=recorder, protocols=Protocols(), tracing=None)
    with pytest.raises(ZeroDivisionError):
        await telemetry(scope, Mock(), send)
    assert sent == ["http.response.start"]
