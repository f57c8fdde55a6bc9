"""What operators see: a request id on every answer, one log line per request, and the metrics."""

import logging
import os
import re
import sys
import time
import uuid
from collections.abc import Iterator
from typing import Literal

import structlog
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.api.problems import INTERNAL_ERROR, internal_error
from service.inference.admission import Admission
from service.inference.health import Health
from service.inference.live_model import LiveModel
from service.inference.predictor import Timings

log: structlog.typing.FilteringBoundLogger = structlog.get_logger()

_REQUEST_ID = re.compile(rb"[\x21-\x7e]{1,128}")
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_BATCH_SIZES = (1, 2, 4, 8, 16, 32, 64, 128)


class Metrics:
    """The counters of one app, in a registry of its own so that a process (a test run) may hold several apps.

    Every label has few values whatever clients send: route templates, known methods, problem names.
    """

    def __init__(self) -> None:
        # Else every counter has a second series, which nobody asks for.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "flowers_requests", "Answered requests.", ["method", "route", "status"], registry=self.registry
        )
        self.problems = Counter(
            "flowers_problems", "Requests answered with a problem.", ["type"], registry=self.registry
        )
        self.duration = Histogram(
            "flowers_request_duration_seconds",
            "From the request's head to the end of the answer.",
            ["route"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.stage_duration = Histogram(
            "flowers_stage_duration_seconds",
            "Parts of a prediction: decode, queue (waiting for a decoder or a lane), infer.",
            ["stage"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.batch_size = Histogram(
            "flowers_batch_size_images",
            "Images in one engine call.",
            buckets=_BATCH_SIZES,
            registry=self.registry,
        )
        self.in_flight = Gauge("flowers_in_flight_requests", "Requests without an answer yet.", registry=self.registry)
        ProcessCollector(registry=self.registry)

    def observe_stages(self, timings: Timings) -> None:
        """Count the parts of one prediction."""
        self.stage_duration.labels("decode").observe(timings.decode_s)
        self.stage_duration.labels("queue").observe(timings.queue_s)
        self.stage_duration.labels("infer").observe(timings.infer_s)


class ServiceCollector(Collector):
    """What is read off the service at the moment of a scrape."""

    def __init__(self, health: Health, admission: Admission, live_model: LiveModel) -> None:
        self._health = health
        self._admission = admission
        self._live_model = live_model

    def collect(self) -> Iterator[Metric]:
        """One family per fact."""
        yield GaugeMetricFamily("flowers_ready", "1 when /readyz answers 200.", float(self._health.is_ready))
        yield GaugeMetricFamily(
            "flowers_queue_images", "Images waiting for a decoder or a lane.", self._admission.num_waiting
        )
        yield CounterMetricFamily("flowers_model_loads", "Versions taken into use.", self._live_model.num_loaded)
        yield CounterMetricFamily("flowers_model_refusals", "Versions refused.", self._live_model.num_refused)
        info = GaugeMetricFamily(
            "flowers_model_info",
            "1 for the version in use.",
            labels=["name", "version", "engine", "device", "precision"],
        )
        if (loaded := self._live_model.current) is not None:
            engine = loaded.engine.info
            info.add_metric([loaded.model, str(loaded.version), engine.engine, engine.device, engine.precision], 1)
        yield info


class Telemetry:
    """The outermost layer, plain ASGI: a layer that wraps bodies would buffer uploads and cost latency.

    It gives each request its id, and answers what no handler answered: a 500 that keeps its cause in the log.
    """

    def __init__(self, app: ASGIApp, *, metrics: Metrics, access_log: bool) -> None:
        self._app = app
        self._metrics = metrics
        self._access_log = access_log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, watch its answer."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started_at = time.perf_counter()
        request_id = _take_request_id(scope)
        scope.setdefault("state", {})["request_id"] = request_id
        status = 0

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [
                    *message.get("headers", ()),
                    (b"x-request-id", request_id.encode("ascii")),
                ]
            await send(message)

        with self._metrics.in_flight.track_inprogress():
            try:
                await self._app(scope, receive, send_with_id)
            except Exception:
                log.exception("request failed", request_id=request_id)
                scope["state"]["problem"] = INTERNAL_ERROR.name
                if status:
                    raise  # half an answer is out: only cutting the connection tells the client
                await internal_error(request_id)(scope, receive, send_with_id)
        self._count(scope, status, time.perf_counter() - started_at)

    def _count(self, scope: Scope, status: int, duration_s: float) -> None:
        state = scope["state"]
        route = getattr(scope.get("route"), "path", "unmatched")
        method = scope["method"] if scope["method"] in _METHODS else "other"
        self._metrics.requests.labels(method, route, str(status)).inc()
        self._metrics.duration.labels(route).observe(duration_s)
        if "problem" in state:
            self._metrics.problems.labels(state["problem"]).inc()
        if self._access_log:
            log.info(
                "request",
                request_id=state["request_id"],
                method=scope["method"][:20],
                path=scope["path"][:200],
                status=status,
                duration_ms=round(duration_s * 1000, 2),
                **state.get("log", {}),
            )


def make_request_id() -> str:
    """A UUID that sorts by time: version 7 of RFC 9562 (Python has it from 3.14)."""
    milliseconds = time.time_ns() // 1_000_000
    random = int.from_bytes(os.urandom(10), "big")
    value = milliseconds << 80 | random
    value = value & ~(0xF << 76) | 7 << 76  # version
    value = value & ~(0b11 << 62) | 0b10 << 62  # variant
    return str(uuid.UUID(int=value))


def configure_logging(log_format: Literal["auto", "json", "console"]) -> None:
    """Our events and the libraries' go to stderr in one form: lines of JSON, or for people on a terminal."""
    is_console = log_format == "console" or (log_format == "auto" and sys.stderr.isatty())
    shared: list[structlog.typing.Processor] = [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    # Plain tracebacks: the rich ones print local variables, which here are people's photographs.
    console = structlog.dev.ConsoleRenderer(
        colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
    )
    last: list[structlog.typing.Processor] = [console]
    if not is_console:
        last = [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    structlog.configure(
        processors=[*shared, *last],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=shared,
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last],
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter)
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)


def _take_request_id(scope: Scope) -> str:
    """The caller's, when it is short and printable (no spaces); else a new one."""
    for name, value in scope["headers"]:
        if name == b"x-request-id":
            return value.decode("ascii") if _REQUEST_ID.fullmatch(value) else make_request_id()
    return make_request_id()
