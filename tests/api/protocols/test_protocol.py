"""Errors of protocols have one form, whichever layer answers."""

import json
from pathlib import Path

import pytest
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from support.fakes import Loader
from support.running import running

from service.api.protocols.protocol import Protocol, Protocols, find_route
from service.api.refusals import Refusals

pytestmark = pytest.mark.anyio
KEY = "a-key-of-32-characters-000000001"


async def answer(request: Request) -> Response:
    return Response()


ROUTES = [Route("/v9/{name}/ready", answer, methods=["GET"]), Route("/v9/{name}:go", answer, methods=["POST"])]
PROTOCOLS = Protocols([Protocol(ROUTES, frozenset({"/v9"}), frozenset({"/v9/{name}/ready"}))])


@pytest.mark.parametrize(("path", "has"), [("/v9", True), ("/v9/x", True), ("/v99", False), ("/", False), ("", False)])
def test_a_protocol_has_its_folder(path: str, has: bool) -> None:
    assert PROTOCOLS.has_path(path) is has


def test_a_probe_is_known_by_method_and_path() -> None:
    assert PROTOCOLS.is_probe("GET", "/v9/flowers/ready")
    assert not PROTOCOLS.is_probe("POST", "/v9/flowers/ready")
    assert not PROTOCOLS.is_probe("GET", "/v9/flowers/other")


def test_a_prediction_is_known_by_its_template() -> None:
    assert PROTOCOLS.find_prediction("/v9/flowers:go") == "/v9/{name}:go"
    assert PROTOCOLS.find_prediction("/v9/flowers/ready") is None
    assert find_route(ROUTES, "POST", "/v9/flowers:go") is ROUTES[1]
    assert Protocols().find_prediction("/v9/flowers:go") is None


@pytest.mark.parametrize(
    ("method", "path", "headers", "status"),
    [
        ("POST", "/hugging-face", {"X-API-Key": KEY}, 400),
        ("POST", "/hugging-face", {}, 401),
        ("GET", "/hugging-face/", {"X-API-Key": KEY}, 405),
        ("POST", "/hugging-face/x", {"X-API-Key": KEY}, 404),
        ("POST", "/invocations", {"X-API-Key": KEY, "X-Request-Timeout-Ms": "x"}, 422),
        ("GET", "/ping", {}, 503),
    ],
)
async def test_each_layer_answers_in_the_protocol_s_form(
    tmp_path: Path, loader: Loader, method: str, path: str, headers: dict[str, str], status: int
) -> None:
    async with running(tmp_path, loader, api_keys=KEY) as service:
        if status == 400:
            service.service.live_model.health.is_draining = False
        response = await service.client.request(method, path, headers=headers)
        text = (await service.client.get("/metrics", headers={"X-API-Key": KEY})).text
    expected = 503 if status == 400 else status  # without a model no body is read
    assert (response.status_code, response.headers["content-type"]) == (expected, "application/json")
    assert response.json().keys() == {"error"}
    assert response.json()["error"].endswith(".")
    assert response.headers["x-request-id"]
    assert ("retry-after" in response.headers) == (expected == 503)
    assert "flowers_problems_total" in text


@pytest.mark.parametrize("target", [b"/hugging-face", b"/invocations/?top_k=1"])
async def test_a_full_queue_answers_in_the_protocol_s_form(store: Path, loader: Loader, target: bytes) -> None:
    async with running(store, loader, max_queue_size=1) as service:
        with service.service.admission.image():
            answer = Refusals(service.service).admit("POST", target, [(b"x-request-id", b"mine")])
        lines = (await service.client.get("/metrics")).text.splitlines()
    assert answer is not None
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 429 ")
    assert {b"content-type: application/json", b"retry-after: 1", b"X-Request-ID: mine"} <= set(head.split(b"\r\n"))
    assert json.loads(body).keys() == {"error"}
    path = target.decode().partition("?")[0].removesuffix("/")
    assert f'flowers_requests_total{{method="POST",route="{path}",status="429"}} 1.0' in lines


@pytest.mark.parametrize(("setting", "path"), [("hugging_face", "/hugging-face"), ("sagemaker", "/invocations")])
async def test_a_switch_takes_a_protocol_away(store: Path, loader: Loader, setting: str, path: str) -> None:
    async with running(store, loader, **{setting: False}) as service:
        response = await service.client.post(path, content=b"x")
        document = (await service.client.get("/openapi.json")).json()
    assert (response.status_code, response.json()["type"]) == (404, "/problems/not-found")
    assert path not in document["paths"]
