"""The image's health check, on real sockets of a real process, without a container."""

import os
import runpy
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from conftest import REPOSITORY

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
    return runpy.run_path(str(REPOSITORY / "docker" / "healthcheck.py"))


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
