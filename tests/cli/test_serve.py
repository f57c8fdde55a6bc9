"""`flowers serve` as a process of its own, over a real socket, with real signals."""

import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from unittest.mock import Mock

import httpx
import pytest
from support.drawing import draw_photograph, encode
from support.serving import Served, served
from support.versions import publish_example

from service.api.app import create_app
from service.api.refusals import Refusals
from service.cli.serve import serve
from service.engines.found import list_driver_gpus
from service.errors import FlowersError
from service.settings import ServeSettings
from service.wire.server import make_config

PHOTO = encode(draw_photograph(2, seed=300))


@contextmanager
def half_sent_photograph(
    url: str,
) -> Iterator[tuple[http.client.HTTPConnection, Callable[[], http.client.HTTPResponse]]]:
    """A prediction whose body is only half there, and what sends the rest and gives the answer."""
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=60)
    connection.putrequest("POST", "/predict")
    connection.putheader("Content-Type", "image/jpeg")
    connection.putheader("Content-Length", str(len(PHOTO)))
    connection.endheaders(PHOTO[:1000])

    def finish() -> http.client.HTTPResponse:
        connection.send(PHOTO[1000:])
        return connection.getresponse()

    while "flowers_in_flight_requests 2.0" not in httpx.get(f"{url}/metrics").text:
        pass  # the service has not seen the head yet
    yield connection, finish
    connection.close()


def test_the_wire_is_guarded_and_names_no_library(tmp_path: Path) -> None:
    with served(tmp_path / "model_store") as service:
        assert "server" not in httpx.get(f"{service.url}/livez").headers
        response = httpx.get(f"{service.url}/livez", headers={"X-Long": "x" * 40 * 1024})
        assert (response.status_code, response.headers["content-type"]) == (431, "application/problem+json")


def test_the_clocks_of_connections_run(tmp_path: Path) -> None:
    """A body that is owed after its answer ends the connection in seconds."""
    with served(tmp_path / "model_store") as service:
        host, port = service.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=60) as connection:
            connection.sendall(b"POST /nothing HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n")
            answer = b""
            while piece := connection.recv(65536):
                answer += piece
            assert answer.startswith(b"HTTP/1.1 404 ")


def test_an_idle_connection_outlives_those_of_balancers(tmp_path: Path) -> None:
    app = create_app(ServeSettings(model_store=tmp_path))
    config = make_config(app, Refusals(app.state.service))
    assert config.timeout_keep_alive > 60


def test_an_empty_store_is_served_as_not_ready(tmp_path: Path) -> None:
    with served(tmp_path / "model_store") as service:
        assert httpx.get(f"{service.url}/livez").status_code == 200
        assert httpx.get(f"{service.url}/readyz").status_code == 503
        service.process.send_signal(signal.SIGTERM)
        assert service.wait_for("draining")["delay_s"] == 0  # nobody sends traffic to who is not ready
        assert service.process.wait() == 0


@pytest.mark.slow
def test_sigterm_lets_accepted_requests_be_answered(tiny_version: Path) -> None:
    with served(tiny_version, "--drain-delay-s", "0") as service:
        service.wait_for("model loaded")
        with half_sent_photograph(service.url) as (_, finish):
            service.process.send_signal(signal.SIGTERM)
            assert service.wait_for("draining")["in_flight"] == 1
            refused = httpx.post(f"{service.url}/predict", content=PHOTO, headers={"Content-Type": "image/jpeg"})
            assert (refused.status_code, refused.json()["type"]) == (503, "/problems/draining")
            assert httpx.get(f"{service.url}/livez").status_code == 200
            answer = finish()
            assert (answer.status, json.load(answer)["label"]) == (200, "roses")
        assert service.wait_for("service stopped")["unanswered"] == 0
        assert service.process.wait() == 0


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_a_decoding_process_ends_with_the_service(tiny_version: Path) -> None:
    photo = encode(draw_photograph(2, seed=300, size=(2400, 1800)), "PNG", compress_level=1)
    with served(tiny_version, "--drain-delay-s", "0") as service:
        service.wait_for("model loaded")
        answer = httpx.post(f"{service.url}/predict", content=photo, timeout=60)
        assert (answer.status_code, answer.json()["label"]) == (200, "roses")
        threads = Path(f"/proc/{service.process.pid}/task").iterdir()
        (decoder,) = " ".join((thread / "children").read_text() for thread in threads).split()
        service.process.send_signal(signal.SIGTERM)
        assert service.process.wait() == 0
        assert not Path(f"/proc/{decoder}").exists()


@pytest.mark.slow
def test_an_endless_upload_does_not_fail_the_stop(tiny_version: Path) -> None:
    with served(tiny_version, "--drain-delay-s", "0", "--drain-timeout-s", "0.2") as service:
        service.wait_for("model loaded")
        with half_sent_photograph(service.url) as (connection, _):
            service.process.send_signal(signal.SIGTERM)
            answer = connection.getresponse()
            assert (answer.status, json.load(answer)["type"]) == (503, "/problems/draining")
            assert answer.headers["X-Request-ID"]
        assert service.wait_for("service stopped")["unanswered"] == 0
        assert service.process.wait() == 0


@pytest.mark.slow
def test_ctrl_c_skips_the_delay(tiny_version: Path) -> None:
    with served(tiny_version, "--drain-delay-s", "300") as service:
        service.wait_for("model loaded")
        service.process.send_signal(signal.SIGINT)
        assert service.wait_for("draining")["delay_s"] == 0
        assert service.process.wait(60) == 0


@pytest.mark.slow
@pytest.mark.parametrize(("first", "second"), [(signal.SIGTERM, signal.SIGINT), (signal.SIGHUP, signal.SIGHUP)])
def test_a_second_signal_ends_the_delay_at_once(
    tiny_version: Path, first: signal.Signals, second: signal.Signals
) -> None:
    with served(tiny_version, "--drain-delay-s", "300") as service:
        service.wait_for("model loaded")
        service.process.send_signal(first)
        assert service.wait_for("draining")["delay_s"] == 300
        assert httpx.get(f"{service.url}/readyz").json()["type"] == "/problems/draining"
        taken = httpx.post(f"{service.url}/predict", content=PHOTO, headers={"Content-Type": "image/jpeg"})
        assert taken.status_code == 200
        service.process.send_signal(second)
        assert service.wait_for("exit forced")["signal"] == second.name
        assert service.process.wait() == 128 + second


def test_sighup_stays_ignored_under_nohup(tmp_path: Path) -> None:
    previous = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # the service inherits it
    try:
        with served(tmp_path) as service:
            service.process.send_signal(signal.SIGHUP)
            service.process.send_signal(signal.SIGTERM)
            assert service.wait_for("draining")["signal"] == "SIGTERM"
            assert service.process.wait() == 0
    finally:
        signal.signal(signal.SIGHUP, previous)


def close_standard_streams() -> None:
    os.closerange(0, 3)


def log_to_a_full_disk() -> None:
    os.dup2(os.open("/dev/full", os.O_WRONLY), 2)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this machine has no /dev/full")
@pytest.mark.parametrize("prepare", [close_standard_streams, log_to_a_full_disk])
def test_a_log_that_cannot_be_written_changes_nothing_else(prepare: Callable[[], None], tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    command = [sys.executable, "-m", "service", "serve", "--port", url.split(":")[-1], "--workers", "1"]
    command += ["--model-store", str(tmp_path)]
    with subprocess.Popen(command, preexec_fn=prepare) as process:
        try:
            while not _is_listening(url):
                assert process.poll() is None
            log = Path(f"/proc/{process.pid}/fd/2").readlink()
            assert str(log) in (os.devnull, "/dev/full"), "a socket has taken the place of the log"
            with httpx.Client(base_url=url) as client:
                assert [client.get("/livez").status_code for _ in range(2)] == [200, 200]
                drops_nothing = str(log) == os.devnull
                # The thread that writes has yet to find the disk full.
                while ("flowers_log_dropped_total 0.0" in client.get("/metrics").text) != drops_nothing:
                    assert not drops_nothing
            process.send_signal(signal.SIGTERM)
            assert process.wait(60) == 0
        finally:
            process.kill()


def test_a_stuck_log_reader_delays_nothing(tmp_path: Path) -> None:
    with served(tmp_path) as service:  # nobody reads on
        host, port = service.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=60) as connection:
            for _ in range(20):  # 2,000 lines; a pipe takes some 300 of them, and the queue 1,024
                connection.sendall(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n" * 100)
                answers = b""
                while answers.count(b"HTTP/1.1 200") < 100:
                    answers += connection.recv(65536)
        assert "flowers_log_dropped_total 0.0" not in httpx.get(f"{service.url}/metrics").text
        service.process.send_signal(signal.SIGTERM)
        assert service.process.wait(60) == 0


def test_a_stop_waits_for_no_idle_reader(tmp_path: Path) -> None:
    """Their answers, larger than what the system takes by itself, are dropped without a word of an error."""
    request = b"GET /docs/swagger-ui-bundle.js HTTP/1.1\r\nHost: x\r\n\r\n"
    with served(tmp_path / "model_store") as service, ExitStack() as clients:
        address = service.url.removeprefix("http://").split(":")
        for ending in (b"", b"NONSENSE\r\n\r\n"):
            client = clients.enter_context(socket.socket())
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.connect((address[0], int(address[1])))
            client.sendall(request * 6 + ending)
        while httpx.get(f"{service.url}/metrics").text.count("/docs/{asset}") == 0:
            pass  # no answer has been made yet
        service.process.send_signal(signal.SIGTERM)
        assert service.process.stderr is not None
        events = [json.loads(line) for line in service.process.stderr]
        assert service.process.wait() == 0
        assert {event["event"] for event in events if event["level"] != "info"} <= {"model missing"}


def test_a_stop_ends_sending_connections_without_an_error(tmp_path: Path) -> None:
    """Their answers came before the end of their bodies, which are thrown away for two seconds."""
    head = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 999999999\r\n\r\n"
    with served(tmp_path / "model_store") as service, ExitStack() as clients:
        address = service.url.removeprefix("http://").split(":")
        for _ in range(2):
            client = clients.enter_context(socket.create_connection((address[0], int(address[1])), timeout=60))
            client.sendall(head)
            assert client.recv(65536).startswith(b"HTTP/1.1 503")
        service.process.send_signal(signal.SIGINT)
        assert service.process.stderr is not None
        events = [json.loads(line) for line in service.process.stderr]
        assert service.process.wait() == 0
        assert {event["event"] for event in events if event["level"] != "info"} <= {"model missing"}


def test_open_connections_are_told_of_the_drain(tmp_path: Path) -> None:
    with served(tmp_path / "model_store") as service:
        connected = http.client.HTTPConnection(service.url.removeprefix("http://"), timeout=60)
        connected.connect()
        assert httpx.get(f"{service.url}/livez").status_code == 200  # so the connection before it is accepted, too
        service.process.send_signal(signal.SIGTERM)
        while _is_listening(service.url):
            pass
        connected.request("POST", "/predict", PHOTO, {"Content-Type": "image/jpeg"})
        assert json.load(connected.getresponse())["type"] == "/problems/draining"
        assert service.process.wait() == 0


def _is_listening(url: str) -> bool:
    host, port = url.removeprefix("http://").split(":")
    try:
        socket.create_connection((host, int(port)), timeout=60).close()
    except ConnectionError:  # refused; or reset, when it came just as the socket closed
        return False
    return True


def test_a_signal_before_it_listens_ends_it_with_0(tmp_path: Path) -> None:
    """As soon as its handler is there, which the kernel tells; the imports of the service alone take a second."""
    command = [sys.executable, "-m", "service", "serve", "--port", "0", "--model-store", str(tmp_path)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        while not _catches_sigterm(process.pid):
            pass
        process.send_signal(signal.SIGTERM)
        assert process.communicate()[1] == ""  # it had not come to listening
        assert process.returncode == 0


def _catches_sigterm(pid: int) -> bool:
    status = Path(f"/proc/{pid}/status").read_text()
    return bool(int(status.split("SigCgt:")[1].split()[0], 16) >> (signal.SIGTERM - 1) & 1)


def test_a_signal_does_not_wait_for_the_load(tiny_version: Path) -> None:
    with served(tiny_version) as service:
        service.process.send_signal(signal.SIGTERM)
        assert service.process.wait() == 0


@pytest.mark.slow
@pytest.mark.parametrize("is_empty", [False, True])
def test_a_missing_device_ends_the_service_with_1(tiny_version: Path, tmp_path: Path, is_empty: bool) -> None:
    if list_driver_gpus():
        pytest.skip("there is a GPU here")
    with served(tmp_path if is_empty else tiny_version, "--device", "gpu") as service:
        assert service.process.stderr is not None
        *_, last = service.process.stderr
        assert service.process.wait() == 1
        assert last.startswith("flowers: --device gpu fails. There is no GPU")


@pytest.mark.slow
def test_a_new_version_makes_the_service_ready(tiny_version: Path, tmp_path: Path) -> None:
    store = tmp_path / "model_store"
    with served(store, "--reload-interval-s", "0.05") as service:
        service.wait_for("model missing")
        shutil.copytree(tiny_version / "flowers" / "1", store / "flowers" / ".publishing-1")
        (store / "flowers" / ".publishing-1").rename(store / "flowers" / "1")
        service.wait_for("model loaded")
        assert httpx.get(f"{service.url}/readyz").status_code == 200


WITH_AN_ENGINE_THAT_HANGS = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from support.fakes import FakeEngine
from service.cli.serve import serve
from service.engines import open_version
from service.inference import watchdog
from service.settings import ServeSettings
engine = FakeEngine()
engine.hold()
open_version.load_engine = lambda *_, **__: engine
watchdog.WEDGED_AFTER_S, watchdog.GIVE_UP_AFTER_S = 0.5, 2.0
settings = ServeSettings(model_store=Path(sys.argv[2]), port=0, log_format="json", workers=1)
sys.exit(serve(settings=settings))
"""


def test_a_hanging_engine_ends_the_process_with_1(tmp_path: Path) -> None:
    publish_example(tmp_path)
    command = [sys.executable, "-c", WITH_AN_ENGINE_THAT_HANGS, str(Path(__file__).parents[1]), str(tmp_path)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        service = Served(process)
        assert "not answered" in service.wait_for("engine in trouble")["reason"]
        assert "not answered" in httpx.get(f"{service.url}/readyz").json()["detail"]
        assert httpx.get(f"{service.url}/livez").status_code == 200
        assert "new one in its place" in service.wait_for("service failed")["reason"]
        assert process.wait() == 1


def test_an_unanswered_image_makes_the_exit_code_1(tmp_path: Path) -> None:
    publish_example(tmp_path)
    program = WITH_AN_ENGINE_THAT_HANGS.replace("log_format=", "drain_timeout_s=0.2, drain_delay_s=0, log_format=")
    program = program.replace("WEDGED_AFTER_S, watchdog.GIVE_UP_AFTER_S = 0.5, 2.0", "GIVE_UP_AFTER_S = 600")
    command = [sys.executable, "-c", program, str(Path(__file__).parents[1]), str(tmp_path)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        service = Served(process)
        service.wait_for("model loaded")
        connection = http.client.HTTPConnection(service.url.removeprefix("http://"), timeout=60)
        connection.request("POST", "/predict", PHOTO, {"Content-Type": "image/jpeg"})
        while "flowers_held_bytes 0.0" in httpx.get(f"{service.url}/metrics").text:
            pass  # the image has not arrived yet
        process.send_signal(signal.SIGTERM)
        assert json.load(connection.getresponse())["type"] == "/problems/draining"
        assert service.wait_for("service stopped")["unanswered"] == 1
        assert process.wait(60) == 1


def test_a_signal_ends_a_process_whose_engine_hangs(tmp_path: Path) -> None:
    publish_example(tmp_path)
    command = [sys.executable, "-c", WITH_AN_ENGINE_THAT_HANGS, str(Path(__file__).parents[1]), str(tmp_path)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        service = Served(process)
        service.wait_for("engine in trouble")
        process.send_signal(signal.SIGTERM)
        assert service.wait_for("service stopped")["unanswered"] == 0
        assert process.wait(60) == 0


def test_a_taken_port_is_explained_in_one_sentence(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        command = [
            sys.executable,
            "-m",
            "service",
            "serve",
            "--port",
            str(port),
            "--model-store",
            str(tmp_path),
        ]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert result.stderr == (
        f"flowers: Port {port} of 127.0.0.1 is taken. Stop its program, or choose another with --port (FLOWERS_PORT).\n"
    )


@pytest.mark.skipif(not socket.has_ipv6, reason="this machine has no IPv6")
def test_flowers_host_can_mean_ipv6_and_ipv4(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLOWERS_HOST", "::")
    with served(tmp_path / "model_store") as service:
        port = service.url.rpartition(":")[2]
        assert service.url == f"http://[::]:{port}"
        for host in ("[::1]", "127.0.0.1"):
            assert httpx.get(f"http://{host}:{port}/livez").status_code == 200


def test_pipes_in_the_store_delay_nothing(tmp_path: Path) -> None:
    store = tmp_path / "model_store"
    publish_example(store)
    publish_example(store)
    for version in ("1", "2"):
        path = store / "flowers" / version / "assets.extra" / "metadata.json"
        path.unlink()
        os.mkfifo(path)
    os.mkfifo(store / "flowers" / "PINNED")
    with served(store, "--reload-interval-s", "0.05") as service:
        service.wait_for("model missing")
        for _ in range(8):
            assert len(httpx.get(f"{service.url}/models/flowers", timeout=10).json()["versions"]) == 2
        (store / "flowers" / "PINNED").unlink()
        service.wait_for("version refused")
        service.process.send_signal(signal.SIGTERM)
        assert service.process.wait(20) == 0


def test_the_log_format_reaches_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    configure = Mock()
    monkeypatch.setattr("service.cli.serve.configure_logging", configure)
    with socket.create_server(("127.0.0.1", 0)) as other, pytest.raises(FlowersError, match="is taken"):
        serve(settings=ServeSettings(port=other.getsockname()[1], log_format="console", workers=1))
    configure.assert_called_once_with("console")
