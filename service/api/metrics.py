"""Metrics for Prometheus: counters of a replica, and facts that are read at each scrape."""

import asyncio
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
    values,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from service.api.problems import PROBLEMS
from service.api.replica import Readiness, Replica
from service.inference.admission import Admission
from service.inference.live_model import LiveModel
from service.inference.predictor import Timings
from service.inference.usage import num_waiting
from service.ranking import Score

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_BATCH_SIZES = (1, 2, 4, 8, 16, 32, 64, 128)
_PROBABILITIES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1.0)
_STAGES = ("decode", "queue", "infer")
_LAG_TICK_S = 0.1


def share_metrics(folder: Path, worker: int) -> None:
    """Keep the counters of this process in files of `folder` from now on, under the worker's number.

    All workers of a replica do, so each can add up all. A worker goes on from the numbers of a dead one of its number.
    """
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(folder)
    values.ValueClass = values.MultiProcessValue(lambda: worker)  # type: ignore[no-untyped-call]


class Metrics:
    """Counters of one app. Each app has its own registry, so a process may hold several.

    Every label has few values whatever clients send. `replica` is None for a process alone.
    """

    def __init__(self, replica: Replica | None = None) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # otherwise every counter has a second series
        self.registry = own = CollectorRegistry()
        self.is_shared = replica is not None
        if replica is None:
            ProcessCollector(registry=self.registry)
        else:
            own = CollectorRegistry()  # its counters are in the files
            MultiProcessCollector(self.registry, str(replica.folder))  # type: ignore[no-untyped-call]
            self.registry.register(_ReplicaCollector(replica))
        histogram = partial(Histogram, registry=own)
        counter = partial(Counter, registry=own)
        self.requests = counter("flowers_requests", "Answered requests.", ["method", "route", "status"])
        self.problems = counter("flowers_problems", "Problems answered. A batch may have one for each image.", ["type"])
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
        self.in_flight = Gauge(
            "flowers_in_flight_requests",
            "Requests without an answer yet.",
            registry=own,
            multiprocess_mode="livesum",
        )
        self.in_flight.set(0)  # a dead worker of this number may have left some
        self.event_loop_lag = histogram(
            "flowers_event_loop_lag_seconds", "Event loop lag, in seconds.", buckets=_SECONDS
        )
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

    def expose(self) -> bytes:
        """Return the metrics of the replica in Prometheus' text format. This reads some files."""
        return generate_latest(self.registry)

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

    readiness: Readiness
    admission: Admission
    live_model: LiveModel
    num_dropped_lines: Callable[[], int]

    def collect(self) -> Iterator[Metric]:
        """Yield one family per fact."""
        watch, shared = self.live_model.watch, self.admission.shared
        everywhere = (shared.own, *shared.others)
        room = min(self.admission.max_queue_size, sum(usage.max_waiting for usage in everywhere))
        waiting = "Images waiting for a thread, or being decoded ahead of it."
        yield GaugeMetricFamily("flowers_ready", "1 when /readyz answers 200.", float(self.readiness.is_ready()))
        yield GaugeMetricFamily("flowers_queue_images", waiting, sum(map(num_waiting, everywhere)))
        yield GaugeMetricFamily("flowers_queue_room_images", "Images that may wait now.", room)
        held_bytes = sum(usage.num_bytes for usage in everywhere)
        yield GaugeMetricFamily("flowers_held_bytes", "Bytes of bodies held in memory.", held_bytes)
        yield CounterMetricFamily("flowers_model_loads", "Versions taken into use.", watch.num_taken)
        yield CounterMetricFamily("flowers_model_refusals", "Versions refused.", watch.num_refused)
        yield CounterMetricFamily("flowers_log_dropped", "Log lines dropped.", self.num_dropped_lines())
        labels = ["name", "version", "engine", "device", "precision"]
        info = GaugeMetricFamily("flowers_model_info", "1 for the version in use.", labels=labels)
        if (loaded := self.live_model.current) is not None:
            engine = loaded.engine.info
            info.add_metric([loaded.model, str(loaded.version), engine.engine, engine.device, engine.precision], 1)
        yield info
        yield GaugeMetricFamily("flowers_workers", "Workers of the replica.", self.readiness.num_workers())
        yield GaugeMetricFamily("flowers_workers_ready", "Workers that can answer.", self.readiness.num_ready())


@dataclass(eq=False)
class _ReplicaCollector(Collector):
    """Facts about the processes of a replica: sums, and the oldest start time."""

    replica: Replica

    def collect(self) -> Iterator[Metric]:
        """Yield the families of `ProcessCollector`."""
        sums: dict[str, Metric] = {}
        for process_id in self.replica.process_ids():
            for family in ProcessCollector(pid=lambda: process_id, registry=None).collect():  # noqa: B023 - called at once
                value = family.samples[0].value
                add = min if family.name == "process_start_time_seconds" else sum
                so_far = [sample.value for sample in sums[family.name].samples] if family.name in sums else []
                total = GaugeMetricFamily(family.name, family.documentation, add([value, *so_far]))
                sums[family.name] = total
        sums.pop("process_cpu_seconds", None)  # a dead worker would take its share along
        yield from sums.values()
        cpu = "Total user and system CPU time spent in seconds."
        yield CounterMetricFamily("process_cpu_seconds", cpu, self.replica.cpu_s())
