"""Archives by HTTP and from files: what is taken, what is refused, and that the digest decides."""

import http.server
import io
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from service.cli.download import copy_archive
from service.errors import ArchiveError, DownloadError, InvalidParameter
from service.files import digest_bytes

CONTENT = os.urandom(300_000)
Answer = Callable[[http.server.BaseHTTPRequestHandler], None]


@contextmanager
def serving(answer: Answer) -> Iterator[str]:
    """A server on a free port, which answers each GET with `answer`. Yield its URL."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answer(self)

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/flowers.tar.gz"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def send(content: bytes = CONTENT, status: int = 200, length: int | None = None, **fields: str) -> Answer:
    def answer(request: http.server.BaseHTTPRequestHandler) -> None:
        request.send_response(status)
        request.send_header("Content-Length", str(len(content) if length is None else length))
        for name, value in fields.items():
            request.send_header(name, value)
        request.end_headers()
        request.wfile.write(content)

    return answer


def copy(source: str, *, sha256: str = digest_bytes(CONTENT), max_bytes: int = 10**6) -> bytes:
    target = io.BytesIO()
    copy_archive(source, target, sha256, max_bytes=max_bytes, progress=lambda *_: None)
    return target.getvalue()


def test_a_file_and_a_url_are_copied_whole(tmp_path: Path) -> None:
    (tmp_path / "a.tar.gz").write_bytes(CONTENT)
    assert copy(str(tmp_path / "a.tar.gz")) == CONTENT
    with serving(send()) as url:
        assert copy(url) == CONTENT
        assert copy(url.replace("127.0.0.1", "LOCALHOST")) == CONTENT


def test_another_digest_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.tar.gz").write_bytes(CONTENT + b"\n")
    for _ in range(2):
        with pytest.raises(ArchiveError, match=f"not {digest_bytes(CONTENT)}. Nothing of it was kept"):
            copy(str(tmp_path / "a.tar.gz"))
    with serving(send(CONTENT[:-1])) as url, pytest.raises(ArchiveError, match="Nothing of it was kept"):
        copy(url)


def test_an_archive_above_the_limit_is_refused_early(tmp_path: Path) -> None:
    (tmp_path / "a.tar.gz").write_bytes(CONTENT)
    assert copy(str(tmp_path / "a.tar.gz"), max_bytes=len(CONTENT)) == CONTENT
    with pytest.raises(ArchiveError, match="more than 299,999 bytes"):
        copy(str(tmp_path / "a.tar.gz"), max_bytes=len(CONTENT) - 1)
    endless = send(CONTENT, length=10**12)
    with serving(endless) as url, pytest.raises(ArchiveError, match="more than 1,000 bytes"):
        copy(url, max_bytes=1000)


@pytest.mark.parametrize(
    "url",
    [
        "http://example.org/a.tar.gz",
        "http://127.0.0.1.example.org/a.tar.gz",
        "http://192.0.2.1/a.tar.gz",
        "ftp://127.0.0.1/a.tar.gz",
        "file:///etc/passwd",
        "https://",
        "https:///a.tar.gz",
        "://",
    ],
)
def test_only_https_or_this_machine_is_asked(url: str) -> None:
    with pytest.raises(InvalidParameter):
        copy(url)


def test_a_refusal_shows_no_password(tmp_path: Path) -> None:
    with pytest.raises(InvalidParameter) as raised:
        copy("http://me:secret@example.org/a.tar.gz?key=secret")
    assert "http://example.org/a.tar.gz is not taken" in str(raised.value)
    assert "secret" not in str(raised.value)


def test_a_redirect_on_the_same_host_is_followed() -> None:
    def answer(request: http.server.BaseHTTPRequestHandler) -> None:
        send(b"", 302, Location="/moved")(request) if "flowers" in request.path else send()(request)

    with serving(answer) as url:
        assert copy(url) == CONTENT


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_to_another_host_is_refused(status: int, host: str) -> None:
    num_asked = []

    def count(request: http.server.BaseHTTPRequestHandler) -> None:
        num_asked.append(1)
        send()(request)

    with (
        serving(count) as elsewhere,
        serving(send(b"", status, Location=elsewhere.replace("127.0.0.1", host))) as url,
        pytest.raises(DownloadError, match="Only its own host is followed"),
    ):
        copy(url)
    assert num_asked == []


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (send(b"", 404), "answered with status 404"),
        (send(b"", 302, Location="/flowers.tar.gz"), "redirected more than 5 times"),
        (send(b"", 302, Location="https://["), "Only its own host is followed"),
        (send(CONTENT[:100], length=200), "could not be fetched"),
        (send(CONTENT, 206), "answered with status 206"),
    ],
)
def test_another_answer_says_what_to_do(answer: Answer, said: str) -> None:
    with serving(answer) as url, pytest.raises(DownloadError, match=f"{said}.*download it yourself"):
        copy(url)


def test_a_server_that_is_not_there_is_named() -> None:
    with serving(send()) as url:
        pass
    with pytest.raises(DownloadError, match=f"{url} could not be fetched"):
        copy(url)


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe", tmp_path / "missing"):
        with pytest.raises(DownloadError, match=r"cannot be read .* Name a file, or a URL"):
            copy(str(path))
