"""Traces of requests for OpenTelemetry. There are none unless the environment names an endpoint.

FastAPI makes the span of a request, takes the client's `traceparent`, and hands it on. This module adds the stages.
The exporter reads the other variables of OpenTelemetry by itself.
"""

import threading
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import structlog
from fastapi.telemetry import TelemetryConfig
from opentelemetry import trace
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from starlette.types import Scope

from service import __version__
from service.api.access import PROBES
from service.api.record import RequestRecord

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_CLOSE_TIMEOUT_S = 2.0
_UNTRACED_PATHS = PROBES | {"/metrics"}
UNTRACED = TelemetryConfig(tracing=False, metrics=False, logs=False, operation_spans=False, auto_configure=False)
"""FastAPI's own telemetry without traces. Our metrics and our log are enough."""
log: structlog.typing.FilteringBoundLogger = structlog.get_logger()


class Tracing:
    """Spans of this process."""

    def __init__(self, provider: "TracerProvider") -> None:
        self._provider = provider
        self._tracer = provider.get_tracer("flowers", __version__)

    def describe(self, record: RequestRecord, method: str, route: str) -> None:
        """Name the span of the request by its route, and add the stages of each image. The answer has not begun."""
        span = trace.get_current_span()
        span.update_name(f"{method} {route}")
        span.set_attribute("http.route", route)
        span.set_attribute("flowers.request_id", record.request_id)
        now_ns = time.time_ns() - time.perf_counter_ns()
        for row in record.rows:
            span.set_attribute("flowers.model.version", row.version.version)
            stages = row.timings.stages_s
            ends_at_ns = now_ns + int((row.timings.ended_at - sum(stages.values())) * 1e9)
            for stage, duration_s in stages.items():
                child = self._tracer.start_span(stage, start_time=ends_at_ns)
                ends_at_ns += int(duration_s * 1e9)
                child.end(ends_at_ns)

    def config(self) -> TelemetryConfig:
        """Return what FastAPI's own telemetry does. It traces no probe."""
        return {**UNTRACED, "tracing": True, "tracer_provider": self._provider, "exclude": _is_untraced}

    def close(self) -> None:
        """Send what waits, for 2 s at most. A collector that does not answer must not hold the end of the process."""
        sending = threading.Thread(target=self._provider.shutdown, daemon=True)
        sending.start()
        sending.join(_CLOSE_TIMEOUT_S)


def make_tracing(environment: Mapping[str, str]) -> Tracing | None:
    """Return the tracing that the environment asks for. None means that it is off.

    A missing package is a warning. A service without traces is better than none.
    """
    endpoint = next((environment[name] for name in _ENDPOINTS if environment.get(name, "").strip()), None)
    if endpoint is None or environment.get("OTEL_TRACES_EXPORTER", "otlp").strip() == "none":
        return None
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import SERVICE_NAME, OTELResourceDetector, Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        log.warning("no traces", reason=f"An endpoint is set, and {error.name} is missing. Install '.[tracing]'.")
        return None
    has_name = SERVICE_NAME in OTELResourceDetector().detect().attributes
    resource = Resource.create({} if has_name else {SERVICE_NAME: "flowers"})
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    log.info("traces", endpoint=_without_secrets(endpoint))
    return Tracing(provider)


def find_traceparent() -> str | None:
    """Return the header `traceparent` of the current span, as W3C Trace Context writes it. None means no span."""
    carrier: dict[str, str] = {}
    TraceContextTextMapPropagator().inject(carrier)
    return carrier.get("traceparent")


def _is_untraced(scope: Scope) -> bool:
    return scope.get("path") in _UNTRACED_PATHS


def _without_secrets(endpoint: str) -> str:
    return urlsplit(endpoint)._replace(netloc=urlsplit(endpoint).netloc.rpartition("@")[2], query="").geturl()
