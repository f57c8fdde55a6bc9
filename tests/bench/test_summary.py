from service.bench.generator import Load, Observed
from service.bench.summary import summarise


def test_a_percentile_is_a_latency_that_occurred() -> None:
    observed = Observed(2.0, latencies_s=[number / 1000 for number in range(1, 101)], num_in_time=90)
    summary = summarise(Load(8, duration_s=2.0), observed)
    assert summary.latency_ms == {"p50": 51.0, "p90": 91.0, "p95": 96.0, "p99": 100.0, "max": 100.0}
    assert (summary.num_answers, summary.answers_per_s) == (100, 45.0)
    assert summary.late_ms is None


def test_where_nothing_was_right_there_is_no_latency() -> None:
    summary = summarise(Load(8), Observed(10.0, errors={"timeout": 1, "status 500": 3}))
    assert summary.latency_ms is None
    assert list(summary.errors.items()) == [("status 500", 3), ("timeout", 1)]
    assert summary.num_errors == 4


def test_a_client_that_is_late_itself_is_told() -> None:
    assert summarise(Load(8, rate=10), Observed(1.0, late_s=[0.001] * 98 + [0.5] * 2)).late_ms == 500.0


def test_the_client_s_work_is_for_every_request() -> None:
    observed = Observed(1.0, latencies_s=[0.1], errors={"timeout": 3}, client_cpu_s=0.4)
    assert summarise(Load(8), observed).client_cpu_ms_per_request == 100
