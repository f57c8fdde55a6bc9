"""Traces: a receiver of ours gets what the real exporter sends."""

import asyncio
import logging
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from structlog.testing import capture_logs
from support.drawing import draw_photograph, encode
from support.fakes import Loader
from support.running import running

from service.api.tracing import find_traceparent, make_tracing

pytestmark = pytest.mark.anyio
PHOTO = encode(draw_photograph(0, seed=1))
TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


class Receiver(BaseHTTPRequestHandler):
    """Keeps the bodies that it gets."""

    bodies: list[bytes]

    def do_POST(self) -> None:
        self.bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def bodies(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[bytes]]:
    kept: list[bytes] = []
    handler = type("Receiving", (Receiver,), {"bodies": kept})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
        yield kept
        server.shutdown()


def read_spans(bodies: list[bytes]) -> dict[str, Any]:
    """The spans by name."""
    requests = [ExportTraceServiceRequest.FromString(body) for body in bodies]
    return {
        span.name: span
        for request in requests
        for resource in request.resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
    }


def attributes_of(described: Any) -> dict[str, Any]:
    return {one.key: one.value.string_value or one.value.int_value for one in described.attributes}


async def test_a_prediction_is_a_span_with_its_stages(
    store: Path, loader: Loader, bodies: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    began_at = time.time_ns()
    with capture_logs() as events:
        async with running(store, loader) as service:
            headers = {"traceparent": f"00-{TRACE}-{PARENT}-01", "X-Request-ID": "mine"}
            await service.client.post("/predict", content=PHOTO, headers=headers)
            await service.client.get("/readyz")
            assert "fastapi" not in (await service.client.get("/metrics")).text
    spans = read_spans(bodies)
    assert spans.keys() == {"POST /predict", "decode", "queue", "infer"}, "a probe has no span"
    request = spans["POST /predict"]
    assert (request.trace_id.hex(), request.parent_span_id.hex()) == (TRACE, PARENT)
    attributes = attributes_of(request)
    assert (attributes["http.route"], attributes["flowers.request_id"]) == ("/predict", "mine")
    assert attributes["flowers.model.version"] == 1
    ends_at = began_at
    for stage in ("decode", "queue", "infer"):
        assert spans[stage].parent_span_id == request.span_id
        assert ends_at <= spans[stage].start_time_unix_nano + 2e6  # the clocks of a computer differ a little
        ends_at = spans[stage].end_time_unix_nano
    assert ends_at <= request.end_time_unix_nano + 2e6
    [line] = [event for event in events if event["event"] == "request" and event["path"] == "/predict"]
    assert line["traceparent"] == f"00-{TRACE}-{request.span_id.hex()}-01"
    resource = ExportTraceServiceRequest.FromString(bodies[0]).resource_spans[0].resource
    assert attributes_of(resource)["service.name"] == "flowers"


async def test_a_refusal_is_a_span_without_stages(store: Path, loader: Loader, bodies: list[bytes]) -> None:
    async with running(store, loader) as service:
        await service.client.post("/predict", content=b"no image")
        await service.client.get("/nowhere")
    spans = read_spans(bodies)
    assert spans.keys() == {"POST /predict", "GET unmatched"}
    assert attributes_of(spans["POST /predict"])["http.response.status_code"] == 415


async def test_what_a_client_does_not_sample_is_not_sent(store: Path, loader: Loader, bodies: list[bytes]) -> None:
    async with running(store, loader) as service:
        answer = await service.client.post(
            "/predict", content=PHOTO, headers={"traceparent": f"00-{TRACE}-{PARENT}-00"}
        )
    assert answer.status_code == 200
    assert bodies == []


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": " "},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "OTEL_TRACES_EXPORTER": "none"},
    ],
)
async def test_without_an_endpoint_there_is_no_tracing(
    environment: dict[str, str], store: Path, loader: Loader, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert make_tracing(environment) is None
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with capture_logs() as events:
        async with running(store, loader) as service:
            await service.client.post("/predict", content=PHOTO, headers={"traceparent": f"00-{TRACE}-{PARENT}-01"})
    assert not [event for event in events if "traceparent" in event]
    assert find_traceparent() is None


def test_a_missing_package_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    with capture_logs() as events:
        assert make_tracing({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"}) is None
    assert "Install '.[tracing]'." in events[0]["reason"]


def test_a_password_stays_out_of_the_log() -> None:
    with capture_logs() as events:
        tracing = make_tracing({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://me:secret@127.0.0.1:1/v1/traces?key=x"})
    assert tracing is not None
    tracing.close()
    assert events[0]["endpoint"] == "http://127.0.0.1:1/v1/traces"


async def test_a_silent_collector_does_not_hold_the_end(
    store: Path, loader: Loader, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def stay_silent(*_: asyncio.StreamReader | asyncio.StreamWriter) -> None:
        await asyncio.Event().wait()

    server = await asyncio.start_server(stay_silent, "127.0.0.1")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
    caplog.set_level(logging.CRITICAL, logger="opentelemetry")
    async with running(store, loader) as service:
        await service.client.post("/predict", content=PHOTO)
        began_at = time.monotonic()
    assert time.monotonic() - began_at < 5  # the exporter would wait 10 s
    server.close()
