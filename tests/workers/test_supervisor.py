"""Replicas of real processes: two workers behind one address, under signals, crashes and new versions."""

import http.client
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from support.drawing import draw_photograph, encode
from support.processes import children, is_gone, wait_until
from support.serving import Served, served

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(sys.platform != "linux", reason="several workers need Linux"),
]
PHOTO = encode(draw_photograph(2, seed=300))
QUICK = ("--engine", "onnxruntime", "--reload-interval-s", "0.2")


@contextmanager
def replica(store: Path, *flags: str, workers: int = 2, delay_s: float = 0) -> Iterator[Served]:
    with served(store, "--workers", str(workers), "--drain-delay-s", str(delay_s), *QUICK, *flags) as service:
        service.wait_for("model loaded")
        wait_until(lambda: metric(service, "flowers_workers_ready") == workers)
        yield service
        service.process.send_signal(signal.SIGINT)
        service.process.wait(30)


def metric(service: Served, name: str) -> float:
    text = httpx.get(f"{service.url}/metrics").text
    return sum(
        float(line.rpartition(" ")[2]) for line in text.splitlines() if line.startswith((f"{name} ", f"{name}{{"))
    )


def workers_of(service: Served) -> list[int]:
    """Numbers of the worker processes. A supervisor has no other children."""
    return sorted(children(service.process.pid))


_opened: list[http.client.HTTPConnection] = []


@pytest.fixture(autouse=True)
def _close_connections() -> Iterator[None]:
    yield
    while _opened:
        _opened.pop().close()


def connect(service: Served) -> http.client.HTTPConnection:
    _opened.append(http.client.HTTPConnection(service.url.removeprefix("http://"), timeout=60))
    return _opened[-1]


def ask(connection: http.client.HTTPConnection, path: str = "/livez") -> int:
    connection.request("GET", path)
    response = connection.getresponse()
    response.read()
    return response.status


def predict(connection: http.client.HTTPConnection) -> tuple[int, int | None]:
    """Status, and the version that answered."""
    connection.request("POST", "/predict", PHOTO, {"Content-Type": "image/jpeg"})
    response = connection.getresponse()
    body = json.loads(response.read())
    return response.status, body.get("model", {}).get("version")


def sockets_of(pid: int, port: int) -> int:
    """Number of established connections to the port that a process holds."""
    inodes = set()
    for file in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in Path(file).read_text().splitlines()[1:]:
            fields = line.split()
            if int(fields[1].rpartition(":")[2], 16) == port and fields[3] == "01":
                inodes.add(f"socket:[{fields[9]}]")
    held = 0
    for link in Path(f"/proc/{pid}/fd").iterdir():
        try:
            held += str(link.readlink()) in inodes
        except OSError:
            continue
    return held


@pytest.mark.parametrize("num_connections", [8, 33, 64])
def test_no_worker_has_more_than_one_above_the_mean(tiny_version: Path, num_connections: int) -> None:
    with replica(tiny_version, workers=3) as service:
        port = int(service.url.rpartition(":")[2])
        workers = workers_of(service)
        wait_until(lambda: not sum(sockets_of(worker, port) for worker in workers))  # those of the probes have ended
        for _ in range(num_connections):
            assert ask(connect(service)) == 200
        counts = [sockets_of(worker, port) for worker in workers]
        assert sum(counts) == num_connections
        assert max(counts) <= num_connections / 3 + 1
        assert sockets_of(service.process.pid, port) == 0, "the supervisor has closed its copies"


def test_a_killed_worker_loses_only_its_own_connections(tiny_version: Path) -> None:
    with replica(tiny_version) as service:
        first, second = workers_of(service)
        connections = [connect(service) for _ in range(8)]
        assert [predict(connection)[0] for connection in connections] == [200] * 8
        port = int(service.url.rpartition(":")[2])
        num_lost = sockets_of(first, port)
        os.kill(first, signal.SIGKILL)
        ended = service.wait_for("worker ended")
        assert (ended["pid"], ended["how"]) == (first, "SIGKILL")
        outcomes: Counter[object] = Counter()
        for connection in connections:
            try:
                outcomes[predict(connection)[0]] += 1
            except (http.client.HTTPException, OSError):
                outcomes["lost"] += 1
        assert outcomes == {200: 8 - num_lost, "lost": num_lost}
        wait_until(lambda: metric(service, "flowers_workers_ready") == 2)
        assert second in workers_of(service)
        assert len(workers_of(service)) == 2


def test_counters_survive_a_killed_worker_and_never_fall(tiny_version: Path) -> None:
    with replica(tiny_version) as service:
        before = metric(service, "flowers_predictions_total")
        num_answered, is_over = Counter[int](), threading.Event()

        def load() -> int:
            num_ok = 0
            connection = connect(service)
            while not is_over.is_set():
                try:
                    num_ok += predict(connection)[0] == 200
                except (http.client.HTTPException, OSError):
                    connection.close()
                    connection = connect(service)
            return num_ok

        with ThreadPoolExecutor(4) as threads:
            clients = [threads.submit(load) for _ in range(4)]
            seen: list[tuple[float, ...]] = []
            names = ("flowers_predictions_total", "flowers_requests_total", "process_cpu_seconds_total",
                     "flowers_event_loop_lag_seconds_count")  # fmt: skip
            try:
                for scrape in range(50):
                    try:
                        text = httpx.get(f"{service.url}/metrics").text
                    except httpx.TransportError:  # it was in flight in the killed worker
                        continue
                    assert "pid=" not in text
                    seen.append(tuple(total(text, name) for name in names))
                    if scrape == 20:
                        os.kill(workers_of(service)[0], signal.SIGKILL)
            finally:
                is_over.set()
            num_answered[200] = sum(client.result() for client in clients)
        assert len(seen) > 45
        for earlier, later in itertools.pairwise(seen):
            assert all(one <= other for one, other in zip(earlier, later, strict=True)), (earlier, later)
        # The killed worker may have counted an answer that its client never got: at most one a client.
        counted = metric(service, "flowers_predictions_total") - before
        assert num_answered[200] <= counted <= num_answered[200] + 4
        wait_until(lambda: metric(service, "flowers_in_flight_requests") == 1)  # this scrape


def total(text: str, name: str) -> float:
    return sum(
        float(line.rpartition(" ")[2]) for line in text.splitlines() if line.startswith((f"{name} ", f"{name}{{"))
    )


def test_a_frozen_worker_gets_no_connection_and_is_replaced(tiny_version: Path) -> None:
    with replica(tiny_version) as service:
        frozen, other = workers_of(service)
        os.kill(frozen, signal.SIGSTOP)
        time.sleep(3.3)  # the time after which a silent worker counts as frozen
        for _ in range(20):
            with httpx.Client(timeout=5) as client:
                assert client.get(f"{service.url}/readyz").status_code == 200
        assert service.wait_for("worker ended")["pid"] == frozen
        wait_until(lambda: metric(service, "flowers_workers_ready") == 2)
        assert other in workers_of(service)


def test_five_deaths_within_a_minute_end_the_replica(tiny_version: Path) -> None:
    with replica(tiny_version) as service:
        for _ in range(5):
            wait_until(lambda: bool(workers_of(service)))
            os.kill(workers_of(service)[0], signal.SIGKILL)
            service.wait_for("worker ended")
        assert "5 workers ended" in service.wait_for("service failed")["reason"]
        assert service.process.wait(30) == 1


def test_no_connection_sees_a_version_go_back(tiny_version: Path, tmp_path: Path) -> None:
    store = tmp_path / "model_store"
    shutil.copytree(tiny_version, store)
    with replica(store) as service:
        is_over = threading.Event()

        def watch() -> list[int | None]:
            connection, versions = connect(service), list[int | None]()
            while not is_over.is_set():
                status, version = predict(connection)
                assert status == 200
                versions.append(version)
            return versions

        with ThreadPoolExecutor(6) as threads:
            clients = [threads.submit(watch) for _ in range(6)]
            try:
                shutil.copytree(store / "flowers" / "1", store / "flowers" / ".publishing-2")
                (store / "flowers" / ".publishing-2").rename(store / "flowers" / "2")
                assert service.wait_for("model loaded")["version"] == 2
                assert {predict(connect(service))[1] for _ in range(6)} == {2}
            finally:
                is_over.set()
            seen = [client.result() for client in clients]
        assert all(versions == sorted(versions, key=str) for versions in seen)
        assert {version for versions in seen for version in versions} <= {1, 2}


def test_a_bad_version_is_taken_by_no_worker(tiny_version: Path, tmp_path: Path) -> None:
    store = tmp_path / "model_store"
    shutil.copytree(tiny_version, store)
    with replica(store) as service:
        shutil.copytree(store / "flowers" / "1", store / "flowers" / ".publishing-2")
        (store / "flowers" / ".publishing-2" / "assets.extra" / "cpu_model.onnx").write_bytes(b"no network")
        (store / "flowers" / ".publishing-2").rename(store / "flowers" / "2")
        while True:
            listed = {httpx.get(f"{service.url}/models/flowers").text for _ in range(4)}
            if all('"refused":"' in text for text in listed):
                break
        assert {predict(connect(service))[1] for _ in range(6)} == {1}
        assert metric(service, "flowers_model_refusals_total") == 1


def test_sigterm_answers_what_was_accepted(tiny_version: Path) -> None:
    with replica(tiny_version) as service:
        connections = [connect(service) for _ in range(6)]
        for connection in connections:
            connection.putrequest("POST", "/predict")
            connection.putheader("Content-Type", "image/jpeg")
            connection.putheader("Content-Length", str(len(PHOTO)))
            connection.endheaders(PHOTO[:1000])
        wait_until(lambda: metric(service, "flowers_in_flight_requests") == 7)
        service.process.send_signal(signal.SIGTERM)
        service.wait_for("draining")
        wait_until(lambda: httpx.get(f"{service.url}/readyz").json().get("type") == "/problems/draining")
        for connection in connections:
            connection.send(PHOTO[1000:])
        assert [connection.getresponse().status for connection in connections] == [200] * 6
        assert service.wait_for("service stopped")["unanswered"] == 0
        assert service.process.wait(30) == 0


def test_a_death_in_the_drain_is_logged_and_counted(tiny_version: Path) -> None:
    with replica(tiny_version) as service:
        connections = [connect(service) for _ in range(2)]
        for connection in connections:
            connection.putrequest("POST", "/predict")
            connection.putheader("Content-Type", "image/jpeg")
            connection.putheader("Content-Length", str(len(PHOTO)))
            connection.endheaders(PHOTO[:1000])
        wait_until(lambda: metric(service, "flowers_held_bytes") == 2000)
        service.process.send_signal(signal.SIGTERM)
        service.wait_for("draining")
        first, second = workers_of(service)
        os.kill(first, signal.SIGKILL)
        os.kill(second, signal.SIGKILL)
        assert {service.wait_for("worker ended")["pid"] for _ in range(2)} == {first, second}
        assert service.wait_for("service stopped")["unanswered"] == 2
        assert service.process.wait(30) == 1


def test_a_pause_of_the_whole_replica_costs_no_worker(tiny_version: Path) -> None:
    with replica(tiny_version) as service:
        workers = workers_of(service)
        for process in (service.process.pid, *workers):
            os.kill(process, signal.SIGSTOP)
        time.sleep(16)  # longer than a silent worker may live
        for process in (service.process.pid, *workers):
            os.kill(process, signal.SIGCONT)
        wait_until(lambda: metric(service, "flowers_workers_ready") == 2)
        time.sleep(0.5)
        assert workers_of(service) == workers


def test_a_second_signal_ends_all_workers_at_once(tiny_version: Path) -> None:
    with replica(tiny_version, delay_s=60) as service:
        workers = workers_of(service)
        service.process.send_signal(signal.SIGTERM)
        service.wait_for("draining")
        service.process.send_signal(signal.SIGTERM)
        assert service.process.wait(30) == 128 + signal.SIGTERM
        wait_until(lambda: all(map(is_gone, workers)))


@pytest.mark.parametrize("is_frozen", [False, True], ids=["running", "frozen"])
def test_workers_end_with_their_supervisor(tiny_version: Path, is_frozen: bool) -> None:
    with replica(tiny_version) as service:
        workers = workers_of(service)
        if is_frozen:
            os.kill(workers[0], signal.SIGSTOP)
        service.process.kill()
        wait_until(lambda: all(map(is_gone, workers)))


def test_signals_to_the_group_are_the_supervisors_to_answer(tiny_version: Path) -> None:
    command = [sys.executable, "-m", "service", "serve", "--port", "0", "--log-format", "json", "--workers", "2"]
    with subprocess.Popen(
        [*command, "--model-store", str(tiny_version), *QUICK],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        service = Served(process)
        service.wait_for("model loaded")
        os.killpg(process.pid, signal.SIGTERM)
        assert service.wait_for("service stopped")["unanswered"] == 0
        assert process.wait(30) == 0


def test_a_missing_gpu_ends_the_replica_with_the_reason(tiny_version: Path) -> None:
    command = [sys.executable, "-m", "service", "serve", "--port", "0", "--workers", "2", "--device", "gpu"]
    ended = subprocess.run([*command, "--model-store", str(tiny_version)], capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert "flowers: --device gpu fails." in ended.stderr


def test_a_burst_of_connections_waits_for_the_workers(tiny_version: Path) -> None:
    with replica(tiny_version) as service:
        workers = workers_of(service)
        for worker in workers:
            os.kill(worker, signal.SIGSTOP)
        connections = [connect(service) for _ in range(700)]  # more than the channels hold
        for connection in connections:
            connection.request("GET", "/livez")
        time.sleep(0.5)
        for worker in workers:
            os.kill(worker, signal.SIGCONT)
        assert Counter(connection.getresponse().status for connection in connections) == {200: 700}


def test_connections_beyond_the_limit_wait_for_one_to_end(tiny_version: Path) -> None:
    with replica(tiny_version, "--max-connections", "4") as service:
        port = int(service.url.rpartition(":")[2])
        wait_until(lambda: not sum(sockets_of(worker, port) for worker in workers_of(service)))
        connections = [connect(service) for _ in range(5)]
        assert [ask(connection) for connection in connections[:4]] == [200] * 4
        connections[4].request("GET", "/livez")
        time.sleep(0.5)
        assert sum(sockets_of(worker, port) for worker in workers_of(service)) == 4
        connections[0].close()
        assert connections[4].getresponse().status == 200
