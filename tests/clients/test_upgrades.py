"""Real clients that offer another protocol, and attackers that do, behind real proxies that keep connections."""

import socket
import subprocess
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from support.drawing import draw_photograph, encode

pytestmark = pytest.mark.clients

PHOTO = encode(draw_photograph(3, seed=300))
OFFERS = (
    b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA\r\n",
    b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n",
    b"Connection: keep-alive\r\nConnection: Upgrade\r\nUpgrade: TLS/1.0\r\nExpect: 100-continue\r\n",
)


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "photo.jpg"
    path.write_bytes(PHOTO)
    return path


def test_curl_offers_http2_and_is_answered(place: Any, photo: Path, require: Callable[[str, str], str]) -> None:
    key = ["-H", f"X-API-Key: {place.key}"] if place.key else []
    command = [require("curl", "curl"), "-sS", "-m", "20", "--http2", "-o", "/dev/null", "-w", "%{http_code} "]
    form = ["-F", f"file=@{photo}", f"{place.url}/predict"]
    again = ["--next", "-sS", "--http2", "-o", "/dev/null", "-w", "%{http_code} ", *key, *form]
    assert subprocess.run([*command, *key, *form, *again], capture_output=True, text=True).stdout == "200 200 "


def test_java_offers_http2_and_is_answered(place: Any, photo: Path, require: Callable[[str, str], str]) -> None:
    java = require("java", "openjdk-17-jdk-headless")
    program = Path(__file__).with_name("Upload.java")
    command = [java, str(program), f"{place.url}/predict", str(photo), *([place.key] if place.key else [])]
    process = subprocess.run(command, capture_output=True, text=True)
    assert process.stdout.split() == ["200", "200"], process.stderr


def test_an_attacker_behind_a_proxy_answers_no_victim(place: Any) -> None:
    """In turns: an offer whose body is a request, its body later than its head; then a victim's request."""
    inner = b"GET /livez HTTP/1.1\r\nHost: f\r\nX-Request-ID: smuggled\r\n\r\n"
    with httpx.Client(base_url=place.url) as victim:
        for turn in range(12):
            head = b"POST /predict HTTP/1.1\r\nHost: f\r\nContent-Type: image/jpeg\r\n" + OFFERS[turn % len(OFFERS)]
            if place.key and turn % 2:
                head += f"X-API-Key: {place.key}\r\n".encode()
            with socket.create_connection(("127.0.0.1", place.port), timeout=1) as attacker:
                attacker.sendall(head + b"Content-Length: %d\r\n\r\n" % len(inner))
                with suppress(TimeoutError):
                    attacker.settimeout(0.1)
                    attacker.recv(65536)
                with suppress(OSError):
                    attacker.sendall(inner)
                for number in range(4):
                    own = f"victim-{turn}-{number}"
                    answer = victim.get("/livez", headers={"X-Request-ID": own})
                    assert (answer.status_code, answer.headers["X-Request-ID"]) == (200, own)
                attacker.settimeout(0.5)
                answers = b""
                with suppress(OSError):
                    while piece := attacker.recv(65536):
                        answers += piece
                assert b"smuggled" not in answers
