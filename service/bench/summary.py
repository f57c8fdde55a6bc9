"""Observed load in figures: throughput, latency percentiles, errors by kind."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from service.bench.generator import Load, Observed

PERCENTILES = (50, 90, 95, 99)


@dataclass(frozen=True)
class Summary:
    """Figures of one load.

    `latency_ms` holds "p50" to "p99" and "max" of right answers. A percentile is a latency that occurred. It is None
    where no answer was right. `late_ms` is the 99th percentile of the generator's own delay in an open loop. Above a
    few ms the client is the bottleneck.
    """

    connections: int
    rate: float | None
    duration_s: float
    num_answers: int
    answers_per_s: float
    latency_ms: dict[str, float] | None
    errors: dict[str, int]
    late_ms: float | None
    client_cpu_ms_per_request: float | None

    @property
    def num_errors(self) -> int:
        """Number of errors of all kinds."""
        return sum(self.errors.values())

    def to_json(self) -> dict[str, Any]:
        """Return the figures for `--json` and for stored results."""
        return asdict(self)


def summarise(load: Load, observed: Observed) -> Summary:
    """Return the figures of one run of `load_target`."""
    num_requests = len(observed.latencies_s) + sum(observed.errors.values())
    return Summary(
        connections=load.connections,
        rate=load.rate,
        duration_s=observed.duration_s,
        num_answers=len(observed.latencies_s),
        answers_per_s=round(observed.num_in_time / observed.duration_s, 2),
        latency_ms=_percentiles_ms(observed.latencies_s),
        errors=dict(sorted(observed.errors.items(), key=lambda kind: -kind[1])),
        late_ms=_milliseconds(np.percentile(observed.late_s, 99)) if observed.late_s else None,
        client_cpu_ms_per_request=_milliseconds(observed.client_cpu_s / num_requests) if num_requests else None,
    )


def _percentiles_ms(latencies_s: list[float]) -> dict[str, float] | None:
    if not latencies_s:
        return None
    values = np.percentile(latencies_s, PERCENTILES, method="higher")
    named = {f"p{percent}": _milliseconds(value) for percent, value in zip(PERCENTILES, values, strict=True)}
    return {**named, "max": _milliseconds(max(latencies_s))}


def _milliseconds(seconds: float) -> float:
    return round(float(seconds) * 1000, 3)
