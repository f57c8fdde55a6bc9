import json
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.drawing import draw_photograph, encode
from support.scripted_server import http, scripted_server
from support.serving import served

from service.cli.main import main

BRIEF = ["--duration-s", "0.5", "--warm-up-s", "0.1"]


@pytest.fixture(scope="module")
def url(tiny_version: Path) -> Iterator[str]:
    """A service in which eight images may wait; nobody reads its log, which therefore must be short."""
    with served(tiny_version, "--max-queue-size", "8", "--no-access-log") as service:
        service.wait_for("model loaded")
        yield service.url


@pytest.mark.long
def test_a_closed_loop_prints_a_row_per_load(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", url, "--connections", "1,2", *BRIEF]) == 0
    rows = [re.findall(r"[^\s│]+", line) for line in capsys.readouterr().out.splitlines() if "connections:" in line]
    assert [row[1] for row in rows] == ["1", "2"]
    for row in rows:
        p50, p90, p95, p99, worst = map(float, row[4:9])
        assert 0 < p50 <= p90 <= p95 <= p99 <= worst < 5000


@pytest.mark.long
def test_open_loop_json_has_rate_latencies_and_errors(
    url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photograph = tmp_path / "large.jpg"
    photograph.write_bytes(encode(draw_photograph(0, seed=1, size=(2000, 1500))))
    assert main(["bench", url, "--rate", "10,400", "--image", str(photograph), "--json", *BRIEF]) == 0
    gentle, heavy = json.loads(capsys.readouterr().out)["runs"]
    assert (gentle["rate"], gentle["errors"], gentle["num_answers"]) == (10.0, {}, 5)
    assert heavy["errors"]["/problems/overloaded"] > 0
    assert set(gentle["latency_ms"]) == {"p50", "p90", "p95", "p99", "max"}


@pytest.mark.long
def test_a_service_that_cannot_answer_is_not_measured(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", url, "--image", __file__]) == 1
    message = capsys.readouterr().err
    assert "/problems/unsupported-image-format" in message
    assert "accepted" in message or "JPEG" in message


def test_another_server_is_not_taken_for_the_service(capsys: pytest.CaptureFixture[str]) -> None:
    async def script(_: int) -> bytes:
        return http(body=b"<html>", media_type="text/html")

    with scripted_server(script) as server:
        assert main(["bench", f"http://127.0.0.1:{server.port}"]) == 1
    assert "not a prediction" in capsys.readouterr().err


def test_a_load_without_any_answer_is_a_failure(capsys: pytest.CaptureFixture[str]) -> None:
    async def script(number: int) -> bytes:
        return http() if number == 0 else http(503, b'{"type": "/problems/draining"}', "application/problem+json")

    with scripted_server(script) as server:
        assert main(["bench", f"http://127.0.0.1:{server.port}", "--connections", "1", *BRIEF]) == 1
    assert "/problems/draining" in capsys.readouterr().out


def test_the_errors_of_all_loads_are_counted(capsys: pytest.CaptureFixture[str]) -> None:
    async def script(number: int) -> bytes:
        return http() if number == 0 else http(503, b'{"type": "/problems/draining"}', "application/problem+json")

    with scripted_server(script) as server:
        main(["bench", f"http://127.0.0.1:{server.port}", "--connections", "1,2", *BRIEF])
    rows = [line.replace("│", " ").split() for line in capsys.readouterr().out.splitlines()]
    first, second, total = (int(row[-1]) for row in rows if row and row[0] in ("connections:", "/problems/draining"))
    assert first + second == total


@pytest.mark.parametrize(("flags", "connections"), [([], [1, 8, 32]), (["--rate", "50"], [512])])
def test_loads_without_connections_have_the_stated_ones(
    flags: list[str], connections: list[int], capsys: pytest.CaptureFixture[str]
) -> None:
    async def script(_: int) -> bytes:
        return http()

    with scripted_server(script) as server:
        brief = ["--duration-s", "0.1", "--warm-up-s", "0", "--json"]
        assert main(["bench", f"http://127.0.0.1:{server.port}", *flags, *brief]) == 0
    assert [run["connections"] for run in json.loads(capsys.readouterr().out)["runs"]] == connections


def test_headers_go_with_each_request() -> None:
    async def script(_: int) -> bytes:
        return http()

    with scripted_server(script) as server:
        flags = ["--connections", "1", "--header", "X-Request-Timeout-Ms: 500", *BRIEF]
        assert main(["bench", f"http://127.0.0.1:{server.port}", *flags]) == 0
    assert all("x-request-timeout-ms: 500\r\n" in head for head in server.heads)
    assert len(server.heads) > 1


def _hear_ctrl_c() -> None:
    """What a shell starts in the background has this signal ignored, and so have its children."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_ctrl_c_during_a_measurement_exits_with_130() -> None:
    is_measuring = threading.Event()

    async def script(number: int) -> bytes:
        if number > 0:  # the first one is asked before it measures
            is_measuring.set()
        return http()

    with scripted_server(script) as server:
        command = [sys.executable, "-m", "service", "bench", f"http://127.0.0.1:{server.port}", "--connections", "1"]
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=_hear_ctrl_c
        ) as process:
            assert is_measuring.wait(60)
            process.send_signal(signal.SIGINT)
            assert process.communicate() == ("", "flowers: interrupted\n")
    assert process.returncode == 130


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--connections", "1,none"], "--connections"),
        (["--connections", "0"], "--connections"),
        (["--rate", "inf"], "--rate"),
        (["--duration-s", "0"], "--duration-s"),
        (["--duration-s", "3601"], "0.1 to 3600 seconds"),
        (["--timeout-s", "nan"], "--timeout-s"),
        (["--header", "no colon"], "--header"),
        (["--header", "A: b\r\nC: d"], "--header"),
        (["--image", "/nowhere"], "--image"),
    ],
)
def test_what_cannot_be_meant_is_asked_wrongly(
    flags: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", "http://127.0.0.1:1", *flags]) == 2
    assert message in capsys.readouterr().err


def test_nobody_at_the_address_is_said_with_the_remedy(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "http://127.0.0.1:1"]) == 1
    assert "flowers serve" in capsys.readouterr().err
    assert main(["bench", "127.0.0.1:1"]) == 2
    assert "http://localhost:8000" in capsys.readouterr().err
