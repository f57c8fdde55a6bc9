"""Metrics: units, stages and moments of what is counted."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from prometheus_client import generate_latest
from support.drawing import draw_photograph, encode
from support.fakes import Loader
from support.running import Running, running
from support.versions import publish_example

from service.api.metrics import Metrics
from service.inference.predictor import Timings
from service.ranking import Score

pytestmark = pytest.mark.anyio
PHOTO = encode(draw_photograph(0, seed=1))


@pytest.fixture
async def service(store: Path, loader: Loader) -> AsyncIterator[Running]:
    async with running(store, loader) as service:
        yield service


def lines_of(metrics: Metrics) -> list[str]:
    return generate_latest(metrics.registry).decode().splitlines()


def test_each_stage_has_its_own_time() -> None:
    metrics = Metrics()
    metrics.observe_prediction(Score("roses", 0.75), Timings(decode_s=1.0, queue_s=2.0, infer_s=4.0, ended_at=9.0))
    lines = lines_of(metrics)
    assert 'flowers_stage_duration_seconds_sum{stage="decode"} 1.0' in lines
    assert 'flowers_stage_duration_seconds_sum{stage="queue"} 2.0' in lines
    assert 'flowers_stage_duration_seconds_sum{stage="infer"} 4.0' in lines
    assert 'flowers_predictions_total{label="roses"} 1.0' in lines
    assert "flowers_prediction_probability_sum 0.75" in lines


def test_durations_of_requests_are_in_seconds() -> None:
    metrics = Metrics()
    metrics.observe_request("POST", "/predict", 200, 0.25)
    lines = lines_of(metrics)
    assert 'flowers_request_duration_seconds_sum{route="/predict",status="200"} 0.25' in lines
    assert 'flowers_request_duration_seconds_bucket{le="0.1",route="/predict",status="200"} 0.0' in lines
    assert 'flowers_request_duration_seconds_bucket{le="0.25",route="/predict",status="200"} 1.0' in lines


def test_problems_and_stages_are_there_before_they_happen() -> None:
    lines = lines_of(Metrics())
    assert 'flowers_problems_total{type="overloaded"} 0.0' in lines
    assert 'flowers_stage_duration_seconds_count{stage="queue"} 0.0' in lines


async def test_the_queue_holds_no_image_that_is_computed(service: Running, loader: Loader) -> None:
    engine = loader.engines[1]
    engine.hold()
    sent = []
    for num_sent, num_waiting in ((1, 0), (2, 1)):
        sent.append(asyncio.create_task(service.client.post("/predict", content=PHOTO)))
        while service.service.admission.num_images < num_sent or not engine.batches:
            await asyncio.sleep(0)
        assert f"flowers_queue_images {num_waiting}.0" in (await service.client.get("/metrics")).text.splitlines()
    engine.release()
    assert [(await answer).status_code for answer in sent] == [200, 200]


async def test_the_room_of_the_queue_includes_waiting_images(store: Path, loader: Loader) -> None:
    async with running(store, loader, max_queue_size=7) as service:
        with service.service.admission.image():
            assert "flowers_queue_room_images 7.0" in lines_of(service.service.metrics)


async def test_bytes_of_a_body_are_held_until_its_answer(service: Running) -> None:
    with service.service.admission.request() as ticket:
        ticket.add_bytes(1000)
        assert "flowers_held_bytes 1000.0" in lines_of(service.service.metrics)
    assert "flowers_held_bytes 0.0" in lines_of(service.service.metrics)


async def test_a_refusal_counts_after_its_version_is_mended(service: Running, store: Path) -> None:
    publish_example(store)
    network = store / "flowers/2/saved_model.pb"
    sound = network.read_bytes()
    for content in (b"another network", sound):
        network.write_bytes(content)
        await service.look()
    lines = lines_of(service.service.metrics)
    assert "flowers_model_loads_total 2.0" in lines
    assert "flowers_model_refusals_total 1.0" in lines


async def test_lag_is_the_delay_beyond_a_tick(monkeypatch: pytest.MonkeyPatch) -> None:
    metrics, loop, ticks = Metrics(), asyncio.get_running_loop(), []
    now, turn = 100.0, asyncio.sleep

    async def sleep(seconds: float) -> None:
        nonlocal now
        ticks.append(seconds)
        now += seconds + 0.25
        await turn(0)

    with monkeypatch.context() as patched:
        patched.setattr(asyncio, "sleep", sleep)
        patched.setattr(loop, "time", lambda: now)
        watching = asyncio.create_task(metrics.watch_event_loop())
        while len(ticks) < 2:
            await turn(0)
        watching.cancel()
    assert ticks[0] == 0.1  # ten times a second
    [total] = [line for line in lines_of(metrics) if line.startswith("flowers_event_loop_lag_seconds_sum")]
    assert float(total.split()[1]) == pytest.approx(0.25 * (len(ticks) - 1))
