import asyncio
import time

from support.scripted_server import Script, ScriptedServer, http, scripted_server

from service.bench.connection import TIMEOUT, Target, find_error
from service.bench.generator import Load, Observed, Question, load_target, run

PROBLEM = http(429, b'{"type": "/problems/overloaded"}', "application/problem+json")


def put_load(script: Script, load: Load) -> tuple[Observed, ScriptedServer]:
    with scripted_server(script) as server:
        target = Target("127.0.0.1", server.port, "/predict")
        questions = [Question(target.post(b"%d" % number, "text/plain"), find_error) for number in range(3)]
        return run(load_target(target, questions, load)), server


async def answer_at_once(_: int) -> bytes:
    return http()


async def answer_after_50_ms(_: int) -> bytes:
    await asyncio.sleep(0.05)
    return http()


def test_a_closed_loop_keeps_each_connection_busy() -> None:
    observed, server = put_load(answer_after_50_ms, Load(4, warm_up_s=0, duration_s=0.5))
    assert server.most_at_once == server.num_connections == 4
    assert set(server.bodies) == {b"0", b"1", b"2"}
    assert len(observed.latencies_s) == len(server.bodies)
    assert min(observed.latencies_s) >= 0.05


def test_an_open_loop_keeps_rate_and_connections() -> None:
    observed, server = put_load(answer_after_50_ms, Load(2, rate=100, warm_up_s=0, duration_s=0.5))
    assert len(server.bodies) == len(observed.latencies_s) == 50
    assert server.most_at_once == 2


def test_a_stall_counts_for_all_requests_due_in_it() -> None:
    """Coordinated omission: counted from when it was sent, only one of these requests would have been slow."""

    async def script(number: int) -> bytes:
        if number == 0:
            await asyncio.sleep(0.5)
        return http()

    observed, _ = put_load(script, Load(1, rate=100, warm_up_s=0, duration_s=0.5))
    assert len(observed.latencies_s) == 50
    assert sum(latency > 0.1 for latency in observed.latencies_s) >= 35


def test_a_long_wait_for_a_connection_is_a_timeout() -> None:
    async def script(_: int) -> bytes:
        await asyncio.sleep(0.2)
        return http()

    observed, _ = put_load(script, Load(1, rate=50, warm_up_s=0, duration_s=0.2, timeout_s=0.1))
    assert observed.errors == {TIMEOUT: 10}


def test_an_open_loop_s_warm_up_does_not_count() -> None:
    observed, server = put_load(answer_after_50_ms, Load(8, rate=50, warm_up_s=0.19, duration_s=0.2))
    assert (len(observed.latencies_s), len(server.bodies)) == (10, 20)
    assert len(observed.late_s) == 10


def test_the_warm_up_does_not_count() -> None:
    observed, server = put_load(answer_after_50_ms, Load(1, warm_up_s=0.5, duration_s=0.3))
    assert 0 < len(observed.latencies_s) < len(server.bodies) - 3


def test_a_last_request_counts_as_latency_not_throughput() -> None:
    async def script(_: int) -> bytes:
        await asyncio.sleep(0.3)
        return http()

    observed, _ = put_load(script, Load(2, warm_up_s=0, duration_s=0.1))
    assert (len(observed.latencies_s), observed.num_in_time) == (2, 0)


def test_errors_are_counted_by_kind_and_have_no_latency() -> None:
    async def script(number: int) -> bytes:
        return (PROBLEM, http(500, b"broken", "text/plain"), http(body=b"{}"), http())[number % 4]

    observed, server = put_load(script, Load(1, warm_up_s=0, duration_s=0.2))
    quarter = len(server.bodies) / 4
    assert set(observed.errors) == {"/problems/overloaded", "status 500", "not a prediction"}
    assert all(abs(count - quarter) <= 1 for count in (*observed.errors.values(), len(observed.latencies_s)))


def test_a_dead_server_is_not_asked_without_a_pause() -> None:
    async def hang_up(_: int) -> None:
        return None

    observed, _ = put_load(hang_up, Load(1, warm_up_s=0, duration_s=0.3))
    assert 1 <= observed.errors["connection reset"] <= 7
    assert observed.latencies_s == []


def test_many_requests_cost_the_client_little_of_the_processor() -> None:
    observed, _ = put_load(answer_at_once, Load(8, warm_up_s=0, duration_s=0.5))
    assert observed.client_cpu_s > 0


def test_the_client_s_work_is_that_of_its_load() -> None:
    before = time.process_time()
    observed, _ = put_load(answer_at_once, Load(1, warm_up_s=0, duration_s=0.1))
    assert 0 < observed.client_cpu_s <= time.process_time() - before
