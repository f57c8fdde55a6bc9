"""The Python client, against the shipped model and against a service that is busy."""

import os
import runpy
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from conftest import REPOSITORY
from support.drawing import draw_photograph, encode
from support.pages import read_block
from support.scripted_server import http, scripted_server
from support.serving import served

CLIENT = REPOSITORY / "examples" / "client.py"
PHOTO = encode(draw_photograph(3, seed=300))
ANSWER = http(body=b'{"label": "roses", "probability": 0.9, "confident": false, "reason": "unlike-training"}')
BUSY = http(429, b'{"type": "/problems/overloaded", "detail": "Later."}').replace(b"\r\n", b"\r\nRetry-After: 0\r\n", 1)


@pytest.fixture(scope="module")
def client() -> dict[str, Any]:
    return runpy.run_path(str(CLIENT))


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with served(REPOSITORY / "model_store", "--device", "cpu") as service:
        service.wait_for("model loaded")
        yield service.url


def test_the_client_prints_the_class_of_each_photograph(url: str, tmp_path: Path) -> None:
    for name in ("a.jpg", "b.jpg"):
        (tmp_path / name).write_bytes(PHOTO)
    label = httpx.post(f"{url}/predict", content=PHOTO).json()["label"]
    command = [sys.executable, str(CLIENT), "a.jpg", "b.jpg"]
    environment = {**os.environ, "SERVICE_URL": url}
    process = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    assert [line.split(" (")[0] for line in process.stdout.splitlines()] == [f"a.jpg: {label}", f"b.jpg: {label}"]


def test_the_client_names_the_problem_and_goes_on(url: str, tmp_path: Path) -> None:
    (tmp_path / "note.jpg").write_text("no image")
    (tmp_path / "a.jpg").write_bytes(PHOTO)
    command = [sys.executable, str(CLIENT), "note.jpg", "a.jpg"]
    environment = {**os.environ, "SERVICE_URL": url}
    process = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert process.returncode == 1
    assert process.stderr.startswith("note.jpg: unsupported-image-format. ")
    assert process.stdout.startswith("a.jpg: ")


def test_the_client_asks_a_busy_service_again(client: dict[str, Any]) -> None:
    async def script(number: int) -> bytes:
        return BUSY if number < 2 else ANSWER

    with scripted_server(script) as server, httpx.Client(base_url=f"http://127.0.0.1:{server.port}") as session:
        answer = client["classify"](session, PHOTO)
    assert (answer.label, answer.doubt) == ("roses", "unlike-training")
    assert len(server.bodies) == 3


def test_the_client_gives_up_a_service_that_stays_busy(client: dict[str, Any]) -> None:
    async def script(number: int) -> bytes:
        return BUSY

    with (
        scripted_server(script) as server,
        httpx.Client(base_url=f"http://127.0.0.1:{server.port}") as session,
        pytest.raises(client["ServiceProblem"]) as caught,
    ):
        client["classify"](session, PHOTO)
    assert caught.value.kind == "overloaded"


def test_the_page_s_python_explains_a_score(url: str, tmp_path: Path) -> None:
    (tmp_path / "tulip.jpg").write_bytes(PHOTO)
    code = read_block("reference/http.md", "Explain a score", "python", url)
    process = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    answer = httpx.post(f"{url}/explain", content=PHOTO, headers={"Accept": "application/json"}).json()
    label, drop = process.stdout.split()
    assert label == answer["label"]
    assert float(drop) == pytest.approx(max(max(row) for row in answer["grid"]), abs=1e-5)
