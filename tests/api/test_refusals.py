"""Answers without the app: counted once, and left to the app where a request is special."""

import json
from collections.abc import AsyncIterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from structlog.testing import capture_logs
from support.fakes import Loader
from support.running import Running, running

from service.api.refusals import Refusals
from service.errors import HeadTooLarge

pytestmark = pytest.mark.anyio
KEY = "a-key-of-32-characters-000000001"


@pytest.fixture
async def service(store: Path, loader: Loader) -> AsyncIterator[Running]:
    async with running(store, loader, max_queue_size=1, cors_origins="https://garden.example") as service:
        yield service


@pytest.fixture
def full(service: Running) -> ExitStack:
    """No further image may wait."""
    waiting = ExitStack()
    waiting.enter_context(service.service.admission.image())
    return waiting


async def lines_of(service: Running) -> list[str]:
    return (await service.client.get("/metrics")).text.splitlines()


async def test_an_unreadable_request_counts_once(service: Running) -> None:
    answer = Refusals(service.service).refuse(HeadTooLarge("Too long."), [(b"x-request-id", b"mine")])
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 431 Request Header Fields Too Large\r\n")
    assert f"Content-Length: {len(body)}".encode() in head.split(b"\r\n")
    problem = json.loads(body)
    assert (problem["type"], problem["detail"], problem["request_id"]) == (
        "/problems/head-too-large",
        "Too long.",
        "mine",
    )
    lines = await lines_of(service)
    assert 'flowers_requests_total{method="other",route="unmatched",status="431"} 1.0' in lines
    assert 'flowers_problems_total{type="head-too-large"} 1.0' in lines


async def test_a_prediction_without_room_counts_once(service: Running, full: ExitStack) -> None:
    with full, capture_logs() as events:
        answer = Refusals(service.service).admit("POST", b"/predict?top_k=2", [])
    assert answer is not None
    assert answer.startswith(b"HTTP/1.1 429 Too Many Requests\r\n")
    assert b"\r\nretry-after: 1\r\n" in answer
    assert [(event["path"], event["status"]) for event in events] == [("/predict", 429)]
    lines = await lines_of(service)
    assert 'flowers_requests_total{method="POST",route="/predict",status="429"} 1.0' in lines
    assert 'flowers_problems_total{type="overloaded"} 1.0' in lines


async def test_a_batch_without_room_counts_under_its_path(service: Running, full: ExitStack) -> None:
    with full:
        answer = Refusals(service.service).admit("POST", b"/predict/batch", [])
    assert answer is not None
    assert answer.startswith(b"HTTP/1.1 429 ")
    assert 'flowers_requests_total{method="POST",route="/predict/batch",status="429"} 1.0' in await lines_of(service)


@pytest.mark.parametrize(
    ("method", "target", "fields"),
    [
        ("GET", b"/predict", []),
        ("POST", b"/models", []),
        ("POST", b"/predict/x", []),
        ("POST", b"/predict", [(b"origin", b"https://garden.example")]),
    ],
)
async def test_other_requests_are_left_to_the_app(
    service: Running, full: ExitStack, method: str, target: bytes, fields: list[tuple[bytes, bytes]]
) -> None:
    with full:
        assert Refusals(service.service).admit(method, target, fields) is None


async def test_a_named_origin_s_page_can_read_a_refusal(service: Running, full: ExitStack) -> None:
    origin = "https://garden.example"
    with full:
        response = await service.client.post("/predict", content=b"x", headers={"Origin": origin})
    assert response.status_code == 429
    assert response.headers["access-control-allow-origin"] == origin


async def test_a_missing_key_is_left_to_the_app(store: Path, loader: Loader) -> None:
    async with running(store, loader, max_queue_size=1, api_keys=KEY) as service:
        refusals = Refusals(service.service)
        with service.service.admission.image():
            assert refusals.admit("POST", b"/predict", [(b"x-api-key", b"another")]) is None
            assert refusals.admit("POST", b"/predict/", [(b"x-api-key", KEY.encode())]) is not None


async def test_requests_of_one_turn_are_expected_together(service: Running) -> None:
    refusals = Refusals(service.service)
    assert refusals.admit("POST", b"/predict", []) is None
    assert refusals.admit("POST", b"/predict", []) is not None


async def test_the_wire_is_told_of_a_drain(service: Running) -> None:
    refusals = Refusals(service.service)
    assert not refusals.is_draining()
    service.service.health.is_draining = True
    assert refusals.is_draining()


async def test_an_unreadable_request_is_logged_with_its_id(service: Running) -> None:
    with capture_logs() as events:
        Refusals(service.service).refuse(HeadTooLarge("Too long."), [(b"x-request-id", b"mine")])
    [event] = events
    assert (event["event"], event["request_id"], event["problem"]) == ("request refused", "mine", "head-too-large")
