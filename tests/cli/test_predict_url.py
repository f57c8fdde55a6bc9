"""`flowers predict --url`: a running service is asked with the Python client."""

import json
import os
import socket
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
from support.predictions import SCORES, prediction, problem
from support.scripted_server import ScriptedServer, http, scripted_server

from service.cli.main import main
from service.client import Retries

Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.client.asynchronous.Retries", partial(Retries, first_pause_s=0.0))


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    for index in range(10):
        (tmp_path / f"{index}.jpg").write_bytes(b"photograph %d" % index)
    return sorted(tmp_path.iterdir())


async def answer(_: int) -> bytes:
    return prediction()


def url_of(server: ScriptedServer) -> str:
    return f"http://127.0.0.1:{server.port}"


def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def predict_json(files: list[Path], url: str, capsys: Capture) -> tuple[int, list[dict[str, object]]]:
    exit_code = main(["predict", *map(str, files), "--url", url, "--format", "json"])
    return exit_code, json.loads(capsys.readouterr().out)


def test_rows_are_in_the_order_of_the_files(files: list[Path], capsys: Capture) -> None:
    async def by_number(number: int) -> bytes:
        photograph = server.bodies[number].split(b"photograph ")[1][:1].decode()
        return prediction(predictions=[{"label": photograph, "probability": 1}])

    with scripted_server(by_number) as server:
        exit_code, rows = predict_json(files, url_of(server), capsys)
    assert exit_code == 0
    assert [row["label"] for row in rows] == list("0123456789")
    assert [row["file"] for row in rows] == [str(file) for file in files]


def test_an_error_spoils_only_its_own_row(files: list[Path], capsys: Capture) -> None:
    async def some(number: int) -> bytes | None:
        body = server.bodies[number]
        if b"photograph 1" in body:
            return problem(415, "unsupported-image-format")
        if b"photograph 2" in body:
            return http(502, b"<html>Bad gateway</html>", "text/html")
        return None if b"photograph 3" in body else prediction()

    missing = files[0].with_name("missing.jpg")
    files[5].unlink()
    files[5].symlink_to("/dev/full")
    with scripted_server(some) as server:
        exit_code, rows = predict_json([*files[:6], missing], url_of(server), capsys)
    assert exit_code == 1
    errors = [str(row["error"]) for row in rows]
    assert [error == "None" for error in errors] == [True, False, False, False, True, False, False]
    said = ("It is unsupported-image-format.", "(502) is not of this service", "gave no answer", "", "no regular file")
    assert all(text in error for text, error in zip(said, errors[1:], strict=False))
    assert "No such file" in errors[6]
    assert rows[0]["predictions"] == SCORES


def test_an_address_without_a_service_is_one_sentence(files: list[Path], capsys: Capture) -> None:
    assert main(["predict", str(files[0]), "--url", f"http://127.0.0.1:{closed_port()}"]) == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "No service answers at" in said


@pytest.mark.parametrize("url", ["localhost:8000", "ftp://localhost", "http://a..b", "http://localhost:port"])
def test_an_address_of_no_service_was_asked_wrongly(url: str, files: list[Path], capsys: Capture) -> None:
    assert main(["predict", str(files[0]), "--url", url]) == 2
    assert "Write it like http://localhost:8000" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        *(
            ("ALL_PROXY", "socks5://127.0.0.1:9"),
            ("ALL_PROXY", "ftp://127.0.0.1:9"),
            ("HTTP_PROXY", "http://127.0.0.1:9"),
        ),
        *(("NO_PROXY", "localhost,fd00::/8"), ("NO_PROXY", "[::1]"), ("SSL_CERT_FILE", "/nowhere")),
    ],
)
def test_a_local_service_is_reached_without_a_proxy(
    files: list[Path], variable: str, value: str, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.setenv(variable, value)
    with scripted_server(answer) as server:
        assert predict_json(files[:1], url_of(server), capsys)[0] == 0


def test_a_dead_proxy_is_named_by_its_variable(
    files: list[Path], monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{closed_port()}")
    assert main(["predict", str(files[0]), "--url", "http://flowers.example"]) == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "proxy of HTTP_PROXY" in said
    assert "add flowers.example to NO_PROXY" in said


def test_a_proxy_that_refuses_is_named_by_its_variable(
    files: list[Path], monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    async def refuse(_: int) -> bytes:
        return http(407)

    with scripted_server(refuse) as server:
        monkeypatch.setenv("HTTPS_PROXY", url_of(server))
        assert main(["predict", str(files[0]), "--url", "https://flowers.example"]) == 1
    assert "cannot be reached through the proxy of HTTPS_PROXY (407" in capsys.readouterr().err
    assert server.heads[0].startswith("connect flowers.example:443 ")


def test_the_key_of_the_environment_goes_with_each_request(
    files: list[Path], monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    async def refuse(_: int) -> bytes:
        return problem(401, "unauthorized")

    monkeypatch.setenv("FLOWERS_API_KEY", " garden\n")
    with scripted_server(refuse) as server:
        assert main(["predict", *map(str, files[:2]), "--url", url_of(server)]) == 1
    captured = capsys.readouterr()
    assert ["x-api-key: garden\r\n" in head for head in server.heads] == [True, True]
    assert "garden" not in captured.out + captured.err


def test_a_key_that_no_header_carries_was_asked_wrongly(
    files: list[Path], monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.setenv("FLOWERS_API_KEY", "gardén")
    assert main(["predict", str(files[0]), "--url", "http://localhost:1"]) == 2
    said = capsys.readouterr().err
    assert "the API key is malformed" in said
    assert "gard" not in said


def test_names_beyond_the_output_encoding_are_escaped(tmp_path: Path) -> None:
    async def roses(_: int) -> bytes:
        return prediction(predictions=[{"label": "玫瑰🌹", "probability": 1}])

    (tmp_path / "rosé.jpg").write_bytes(b"photograph")
    program = (
        "import sys; from service.cli.main import main; arguments = sys.argv[1:]\n"
        "for form in ('table', 'csv', 'json'):\n"
        "    sys.argv[1:] = [*arguments, '--format', form]; code = main(); print('next'); code and sys.exit(code)"
    )
    with scripted_server(roses) as server:
        process = subprocess.run(
            [sys.executable, "-c", program, "predict", str(tmp_path / "rosé.jpg"), "--url", url_of(server)],
            env={**os.environ, "PYTHONIOENCODING": "latin-1"},
            capture_output=True,
            check=False,
        )
    assert process.returncode == 0, process.stderr
    table, lines, document, _ = process.stdout.decode("latin-1").split("next\n")
    for said in (table, lines):
        assert "rosé.jpg" in said
        assert r"\u73ab\u7470" in said
    (row,) = json.loads(document)
    assert (Path(row["file"]).name, row["label"]) == ("rosé.jpg", "玫瑰🌹")
