"""Metrics for Prometheus: counters of one app, and facts that are read at each scrape."""

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, disable_created_metrics
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from service.api.problems import PROBLEMS
from service.inference.admission import Admission
from service.inference.health import Health
from service.inference.live_model import LiveModel
from service.inference.predictor import Timings
from service.ranking import Score

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_BATCH_SIZES = (1, 2, 4, 8, 16, 32, 64, 128)
_PROBABILITIES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1.0)
_STAGES = ("decode", "queue", "infer")
_LAG_TICK_S = 0.1


class Metrics:
    """Counters of one app. Each app has its own registry, so a process may hold several.

    Every label has few values whatever clients send.
    """

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # otherwise every counter has a second series
        self.registry = CollectorRegistry()
        histogram = partial(Histogram, registry=self.registry)
        counter = partial(Counter, registry=self.registry)
        self.requests = counter("flowers_requests", "Answered requests.", ["method", "route", "status"])
        self.problems = counter("flowers_problems", "Requests answered with a problem.", ["type"])
        self.duration = histogram(
            "flowers_request_duration_seconds",
            "From the request's head to the end of the answer.",
            ["route", "status"],
            buckets=_SECONDS,
        )
        self.stage_duration = histogram(
            "flowers_stage_duration_seconds",
            "Parts of a prediction: decode, queue (waiting for a thread, and for images ahead), infer.",
            ["stage"],
            buckets=_SECONDS,
        )
        self.batch_size = histogram("flowers_batch_size_images", "Images in one engine call.", buckets=_BATCH_SIZES)
        self.predictions = counter("flowers_predictions", "Predictions by best class.", ["label"])
        self.probability = histogram(
            "flowers_prediction_probability", "Probability of the best class.", buckets=_PROBABILITIES
        )
        self.in_flight = Gauge("flowers_in_flight_requests", "Requests without an answer yet.", registry=self.registry)
        self.event_loop_lag = histogram(
            "flowers_event_loop_lag_seconds", "Event loop lag, in seconds.", buckets=_SECONDS
        )
        ProcessCollector(registry=self.registry)
        # From 0 on, since Prometheus sees no increase in a series that begins with 1.
        for name in PROBLEMS:
            self.problems.labels(name)
        for stage in _STAGES:
            self.stage_duration.labels(stage)

    def observe_request(self, method: str, route: str, status: int, duration_s: float) -> None:
        """Count one answered request and its duration (seconds)."""
        self.requests.labels(method, route, str(status)).inc()
        self.duration.labels(route, str(status)).observe(duration_s)

    def observe_prediction(self, best: Score, timings: Timings) -> None:
        """Count one prediction: its stages, its class, its probability."""
        for stage, duration_s in zip(_STAGES, (timings.decode_s, timings.queue_s, timings.infer_s), strict=True):
            self.stage_duration.labels(stage).observe(duration_s)
        self.predictions.labels(best.label).inc()
        self.probability.observe(best.probability)

    async def watch_event_loop(self) -> None:
        """Observe the event loop's lag ten times a second, until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            due_at = loop.time() + _LAG_TICK_S
            await asyncio.sleep(_LAG_TICK_S)
            self.event_loop_lag.observe(max(0.0, loop.time() - due_at))


@dataclass(eq=False)  # a registry holds it by its identity
class ServiceCollector(Collector):
    """Facts that are read at each scrape."""

    health: Health
    admission: Admission
    live_model: LiveModel
    num_dropped_lines: Callable[[], int]

    def collect(self) -> Iterator[Metric]:
        """Yield one family per fact."""
        admission, live_model = self.admission, self.live_model
        waiting = "Images waiting for a thread, or being decoded ahead of it."
        yield GaugeMetricFamily("flowers_ready", "1 when /readyz answers 200.", float(self.health.is_ready))
        yield GaugeMetricFamily("flowers_queue_images", waiting, admission.num_waiting)
        yield GaugeMetricFamily("flowers_queue_room_images", "Images that may wait now.", admission.max_waiting)
        yield GaugeMetricFamily("flowers_held_bytes", "Bytes of bodies held in memory.", admission.num_bytes)
        yield CounterMetricFamily("flowers_model_loads", "Versions taken into use.", live_model.num_loaded)
        yield CounterMetricFamily("flowers_model_refusals", "Versions refused.", live_model.num_refused)
        yield CounterMetricFamily("flowers_log_dropped", "Log lines dropped.", self.num_dropped_lines())
        labels = ["name", "version", "engine", "device", "precision"]
        info = GaugeMetricFamily("flowers_model_info", "1 for the version in use.", labels=labels)
        if (loaded := live_model.current) is not None:
            engine = loaded.engine.info
            info.add_metric([loaded.model, str(loaded.version), engine.engine, engine.device, engine.precision], 1)
        yield info
