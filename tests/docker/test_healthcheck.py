"""The image's health check, on real sockets of a real process, without a container."""

import importlib.util
import os
import runpy
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from conftest import REPOSITORY

SCRIPT = REPOSITORY / "docker" / "healthcheck.py"
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")

SERVER = """
import http.server, socket, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(int(sys.argv[2]) if self.path == "/readyz" else 404)
        self.end_headers()
        self.wfile.write(b"its reason")
family, *_, address = socket.getaddrinfo(sys.argv[1], 0, type=socket.SOCK_STREAM)[0]
http.server.HTTPServer.address_family = family
server = http.server.HTTPServer(address[:2], Handler)
print(server.server_port, flush=True)
server.serve_forever()
"""


@pytest.fixture(scope="module")
def check() -> dict[str, Any]:
    return runpy.run_path(str(SCRIPT))


@contextmanager
def listening(host: str, status: int) -> Iterator[tuple[int, int]]:
    """A process that listens on a free port: its id, and the port."""
    command = [sys.executable, "-c", SERVER, host, str(status)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.pid, int(process.stdout.readline())
        finally:
            process.kill()


@pytest.fixture
def processes(tmp_path: Path) -> Callable[[int], Path]:
    """What a container sees of the processes: one, and its id is 1."""

    def show(process: int) -> Path:
        (tmp_path / "1").symlink_to(f"/proc/{process}")
        (tmp_path / "self").symlink_to("/proc/self")
        return tmp_path

    return show


@pytest.mark.parametrize(
    ("host", "asked", "status"),
    [
        ("0.0.0.0", ["127.0.0.1"], 200),
        ("127.0.0.2", ["127.0.0.2"], 503),
        ("::", ["::1", "127.0.0.1"], 200),
        ("::1", ["::1"], 503),
        ("127.0.0.3", ["127.0.0.3"], 404),
    ],
)
def test_the_check_asks_where_the_service_listens(
    check: dict[str, Any],
    processes: Callable[[int], Path],
    host: str,
    asked: list[str],
    status: int,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with listening(host, status) as (process, port):
        assert check["find_listeners"](processes(process)) == [(address, port) for address in asked]
        assert check["is_ready"](asked[0], port) == (status == 200)
    assert "its reason" in capsys.readouterr().out


def test_a_port_without_a_service_is_no_health(check: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    with listening("127.0.0.1", 200) as (_, port):
        pass
    assert not check["is_ready"]("127.0.0.1", port)
    assert "no answer" in capsys.readouterr().out


def test_an_unreadable_process_is_passed_over(check: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "1").mkdir()
    (tmp_path / "2").symlink_to(f"/proc/{os.getpid()}-gone")
    assert check["find_listeners"](tmp_path) == []


def test_an_answer_that_is_no_http_is_no_health(check: dict[str, Any]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(b"220 mail.example\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        assert not check["is_ready"]("127.0.0.1", server.getsockname()[1])
        thread.join()


@pytest.fixture
def program() -> ModuleType:
    spec = importlib.util.spec_from_file_location("healthcheck", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_one_ready_listener_is_health(program: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    with listening("127.0.0.1", 503) as (_, other), listening("127.0.0.1", 200) as (_, ready):
        for ports, exit_code in (((other, ready), 0), ((ready, other), 0), ((other,), 1)):
            monkeypatch.setattr(program, "find_listeners", lambda found=ports: [("127.0.0.1", port) for port in found])
            assert program.main() == exit_code


def test_without_sockets_the_port_of_the_environment_is_asked(
    program: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(program, "find_listeners", list)
    with listening("127.0.0.1", 200) as (_, port):
        monkeypatch.setenv("FLOWERS_PORT", str(port))
        assert program.main() == 0
    assert program.main() == 1


def test_no_health_is_exit_code_1() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    nothing = "import pathlib, runpy, sys; pathlib.Path.glob = lambda *_: iter(())"
    command = [sys.executable, "-c", f"{nothing}; runpy.run_path(sys.argv[1], run_name='__main__')", str(SCRIPT)]
    process = subprocess.run(command, env={**os.environ, "FLOWERS_PORT": str(port)}, capture_output=True, check=False)
    assert process.returncode == 1, process.stderr
    assert b"no answer from /readyz" in process.stdout
