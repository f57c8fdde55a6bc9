import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from service.cli.main import main
from service.cli.remote import Row, predict_remotely
from service.errors import InvalidParameter, ServiceError
from service.ranking import Score

GOOD = {
    "confident": True,
    "predictions": [{"label": "roses", "probability": 0.9}, {"label": "tulips", "probability": 0.1}],
}
Answer = Callable[[str, bytes], tuple[int, bytes]]
"""Path and body of a request -> status and body of the answer."""


@pytest.fixture
def serve() -> Iterator[Callable[[Answer], str]]:
    """Starts a server that answers as it is told, and gives its address: a sound service never does these."""
    servers: list[ThreadingHTTPServer] = []

    def start(answer: Answer) -> str:
        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                status, body = answer(self.path, self.rfile.read(int(self.headers["Content-Length"])))
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    for index in range(10):
        (tmp_path / f"{index}.jpg").write_bytes(b"photograph %d" % index)
    return sorted(tmp_path.iterdir())


def test_a_file_is_sent_as_the_multipart_field_file(serve: Callable[[Answer], str], files: list[Path]) -> None:
    requests: list[tuple[str, bytes]] = []

    def answer(path: str, body: bytes) -> tuple[int, bytes]:
        requests.append((path, body))
        return 200, json.dumps(GOOD).encode()

    url = serve(answer)
    (row,) = predict_remotely(files[:1], 2, f"{url}/")
    assert row.reason is None
    assert row == Row(files[0], (Score("roses", 0.9), Score("tulips", 0.1)), confident=True)
    path, body = requests[0]
    assert path == "/predict?top_k=2"
    assert b'name="file"' in body
    assert b"photograph 0" in body
    assert b"0.jpg" not in body, "its name stays here"


def test_an_unsure_answer_stays_unsure(serve: Callable[[Answer], str], files: list[Path]) -> None:
    for reason in ({}, {"reason": "unlike-training"}):
        answer = json.dumps(GOOD | {"confident": False} | reason).encode()
        (row,) = predict_remotely(files[:1], None, serve(lambda *_, answer=answer: (200, answer)))
        assert (row.confident, row.reason) == (False, reason.get("reason"))


def test_four_files_are_sent_at_once(serve: Callable[[Answer], str], files: list[Path]) -> None:
    all_here = threading.Barrier(4)

    def answer(*_: object) -> tuple[int, bytes]:
        all_here.wait(30)
        return 200, json.dumps(GOOD).encode()

    assert not [row.error for row in predict_remotely(files[:8], None, serve(answer)) if row.error]


def test_answers_come_in_the_order_of_the_files(serve: Callable[[Answer], str], files: list[Path]) -> None:
    def answer(_: str, body: bytes) -> tuple[int, bytes]:
        number = next(index for index in range(10) if b"photograph %d" % index in body)
        return 200, json.dumps({"confident": True, "predictions": [{"label": str(number), "probability": 1}]}).encode()

    rows = list(predict_remotely(files, None, serve(answer)))
    assert [row.scores[0].label for row in rows] == list("0123456789")


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        (
            415,
            b'{"title": "Unsupported image format", "detail": "not an image: send a photograph"}',
            "not an image",
        ),
        (429, b'{"detail": "The queue is full"}', "The queue is full"),
        (502, b"<html>Bad gateway</html>", "(502) is not of this service"),
        (200, b"{}", "(200) is not of this service"),
        (200, b"[1]", "(200) is not of this service"),
        (
            200,
            b'{"confident": true, "predictions": [{"label": "x", "probability": "much"}]}',
            "not of this service",
        ),
    ],
)
def test_an_error_spoils_only_its_own_row(
    serve: Callable[[Answer], str], files: list[Path], status: int, body: bytes, said: str
) -> None:
    url = serve(lambda _, sent: (status, body) if b"photograph 1" in sent else (200, json.dumps(GOOD).encode()))
    missing = files[0].with_name("missing.jpg")
    rows = list(predict_remotely([*files[:3], missing], None, url))
    assert [row.error is None for row in rows] == [True, False, True, False]
    assert said in str(rows[1].error)
    assert "No such file" in str(rows[3].error)


def test_a_bad_file_spoils_only_its_own_row(serve: Callable[[Answer], str], files: list[Path]) -> None:
    """A file of terabytes of zeros would take all memory. A device has no end."""
    os.truncate(files[3], 2**42)
    files[5].unlink()
    files[5].symlink_to("/dev/full")
    rows = list(predict_remotely(files, None, serve(lambda *_: (200, json.dumps(GOOD).encode()))))
    assert [row.path for row in rows if row.error] == [files[3], files[5]]
    assert "more than 1,073,741,824 bytes" in str(rows[3].error)
    assert "no regular file" in str(rows[5].error)


def test_a_connection_that_breaks_spoils_only_its_own_row(serve: Callable[[Answer], str], files: list[Path]) -> None:
    def answer(_: str, body: bytes) -> tuple[int, bytes]:
        if b"photograph 1" in body:
            raise ConnectionAbortedError
        return 200, json.dumps(GOOD).encode()

    rows = list(predict_remotely(files[:3], None, serve(answer)))
    assert [row.error is None for row in rows] == [True, False, True]
    assert "gave no answer" in str(rows[1].error)


def test_nobody_at_the_address_is_one_sentence(files: list[Path], capsys: pytest.CaptureFixture[str]) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as server:
        port = server.server_port
    with pytest.raises(ServiceError, match="No service answers at"):
        list(predict_remotely(files, None, f"http://127.0.0.1:{port}"))
    assert main(["predict", str(files[0]), "--url", f"http://127.0.0.1:{port}"]) == 1
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize(
    "url", ["", "localhost:8000", "ftp://localhost", "http://", "http://localhost:port", "/predict", "http://a..b"]
)
def test_what_is_no_address_was_asked_wrongly(url: str, files: list[Path], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(InvalidParameter, match="Write it like http://localhost:8000"):
        list(predict_remotely(files, None, url))


@pytest.mark.parametrize("end", ["", "/", "/predict", "/predict/", "/predict?top_k=1#x"])
@pytest.mark.parametrize("prefix", ["", "/flowers"])
def test_the_address_may_be_that_of_predict(
    serve: Callable[[Answer], str], files: list[Path], prefix: str, end: str
) -> None:
    paths = []

    def answer(path: str, _: bytes) -> tuple[int, bytes]:
        paths.append(path)
        return 200, json.dumps(GOOD).encode()

    (row,) = predict_remotely(files[:1], None, serve(answer) + prefix + end)
    assert (row.error, paths) == (None, [f"{prefix}/predict"])


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
    serve: Callable[[Answer], str], files: list[Path], variable: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, value)
    (row,) = predict_remotely(files[:1], None, serve(lambda *_: (200, json.dumps(GOOD).encode())))
    assert row.error is None


def test_a_dead_proxy_is_named_by_its_variable(
    files: list[Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as server:
        monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{server.server_port}")
    assert main(["predict", str(files[0]), "--url", "http://flowers.example"]) == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "proxy of HTTP_PROXY" in said
    assert "add flowers.example to NO_PROXY" in said


def test_a_proxy_that_refuses_is_named_by_its_variable(
    serve: Callable[[Answer], str], files: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", serve(lambda *_: (200, b"")))
    with pytest.raises(ServiceError, match="cannot be reached through the proxy of HTTPS_PROXY"):
        list(predict_remotely(files, None, "https://flowers.example"))


def test_names_beyond_the_output_encoding_are_escaped(serve: Callable[[Answer], str], tmp_path: Path) -> None:
    roses = {"confident": True, "predictions": [{"label": "玫瑰🌹", "probability": 1}]}
    url = serve(lambda *_: (200, json.dumps(roses).encode()))
    (tmp_path / "rosé.jpg").write_bytes(b"photograph")
    program = (
        "import sys; from service.cli.main import main; arguments = sys.argv[1:]\n"
        "for form in ('table', 'csv', 'json'):\n"
        "    sys.argv[1:] = [*arguments, '--format', form]; code = main(); print('next'); code and sys.exit(code)"
    )
    process = subprocess.run(
        [sys.executable, "-c", program, "predict", str(tmp_path / "rosé.jpg"), "--url", url],
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


def test_a_service_that_does_not_answer_is_given_up(serve: Callable[[Answer], str], files: list[Path]) -> None:
    given_up = threading.Event()

    def answer(*_: object) -> tuple[int, bytes]:
        given_up.wait(10)
        return 200, json.dumps(GOOD).encode()

    (row,) = predict_remotely(files[:1], None, serve(answer), timeout_s=0.2)
    given_up.set()
    assert "gave no answer (ReadTimeout)" in str(row.error)
