import shutil
import ssl
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import httpx
import pytest
from support.scripted_server import http, scripted_server

from service.errors import InvalidParameter, SettingsError
from service.http_client import Way, parse_service_url

PROXY = "http://127.0.0.1:9"
AWAY = "http://flowers.example"
HERE = (
    *("http://localhost:8000", "http://LOCALHOST.:8000", "http://a.localhost", "http://ip6-localhost"),
    *("http://127.0.0.1", "http://127.3.2.1", "http://127.1", "http://[::1]", "http://[::ffff:127.0.0.1]"),
    *("http://0.0.0.0:8000", "http://[::]:8000", "https://localhost"),
)


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ALL_PROXY", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "SSL_CERT_FILE", "SSL_CERT_DIR"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@pytest.mark.parametrize("url", HERE)
def test_a_request_to_this_machine_takes_no_proxy(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ALL_PROXY", "http_proxy", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "socks5://127.0.0.1:9")
    assert Way(httpx.URL(url)).proxy_variable is None


@pytest.mark.parametrize("name", ["SSL_CERT_FILE", "SSL_CERT_DIR"])
def test_plain_http_reads_no_certificates(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "/nowhere")
    Way(httpx.URL("http://localhost"))
    Way(httpx.URL(AWAY))


@pytest.mark.parametrize(
    ("variable", "url"),
    [
        ("HTTP_PROXY", AWAY),
        ("http_proxy", AWAY),
        ("ALL_PROXY", AWAY),
        ("all_proxy", "https://flowers.example"),
        ("HTTPS_PROXY", "https://flowers.example"),
        ("HTTP_PROXY", "http://192.168.0.9"),
    ],
)
def test_another_machine_is_asked_through_the_proxy(variable: str, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(variable, PROXY)
    assert Way(httpx.URL(url)).proxy_variable == variable


@pytest.mark.parametrize(("wins", "loses"), [("http_proxy", "HTTP_PROXY"), ("HTTP_PROXY", "ALL_PROXY")])
def test_the_more_special_proxy_variable_wins(wins: str, loses: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(wins, PROXY)
    monkeypatch.setenv(loses, "http://127.0.0.1:8")
    assert Way(httpx.URL(AWAY)).proxy_variable == wins


def test_requests_and_their_headers_go_through_the_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    async def script(_: int) -> bytes:
        return http()

    with scripted_server(script) as proxy:
        monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{proxy.port}")
        with Way(httpx.URL(AWAY)).open_client(timeout_s=60, headers=[("X-API-Key", "garden")]) as client:
            assert client.post(f"{AWAY}/predict", content=b"image").is_success
    (head,) = proxy.heads
    assert head.startswith("post http://flowers.example/predict ")
    assert "x-api-key: garden\r\n" in head


def test_a_proxy_may_be_written_without_a_scheme(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "proxy.example:3128")
    assert Way(httpx.URL(AWAY)).proxy_variable == "HTTP_PROXY"


@pytest.mark.parametrize(
    ("no_proxy", "url", "is_excepted"),
    [
        ("flowers.example", AWAY, True),
        (".example", AWAY, True),
        ("*", AWAY, True),
        ("localhost,fd00::/8", AWAY, False),
        ("localhost,fd00::/8", "http://[fd00::7]:8000", True),
        ("[fd00::7]", "http://[fd00::7]", True),
        ("10.0.0.0/8", "http://10.1.2.3", True),
        ("10.0.0.0/8", "http://11.1.2.3", False),
        ("10.1.0.0/8", "http://10.1.2.3", True),
        ("[::1], ,:,::/129", AWAY, False),
    ],
)
def test_no_proxy_holds_names_addresses_and_networks(
    no_proxy: str, url: str, is_excepted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", PROXY)
    monkeypatch.setenv("NO_PROXY", no_proxy)
    assert (Way(httpx.URL(url)).proxy_variable is None) == is_excepted


@pytest.mark.parametrize(
    "proxy",
    [
        *("socks5://user:secret@127.0.0.1:9", "ftp://127.0.0.1:9", "socks4://127.0.0.1", "http://", "http://[secret"),
        *("http://secret:port", "://secret", "secret://"),
    ],
)
def test_an_unusable_proxy_is_one_sentence_with_the_variable(proxy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", proxy)
    with pytest.raises(SettingsError, match=r"^ALL_PROXY .*http://host:port.*NO_PROXY\.$") as caught:
        Way(httpx.URL(AWAY))
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("variable", ["SSL_CERT_FILE", "SSL_CERT_DIR"])
@pytest.mark.parametrize("name", ["nothing", "no_certificates"])
def test_certificates_that_cannot_be_read_are_one_sentence(
    variable: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "no_certificates").write_text("no certificates")
    monkeypatch.setenv(variable, str(tmp_path / name))
    with pytest.raises(SettingsError, match=f"^{variable} is .*{name}.*unset {variable}\\.$"):
        Way(httpx.URL("https://flowers.example"))


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """A certificate of this machine that no authority has signed, with its key."""
    if shutil.which("openssl") is None:
        pytest.skip("no openssl on this machine")
    path = tmp_path / "certificate.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", str(path), "-out", str(path)]
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    subprocess.run([*command, *names], capture_output=True, check=True)
    return path


@pytest.fixture
def encrypted(certificate: Path) -> Iterator[str]:
    """The address of a server with this certificate."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    server = HTTPServer(("localhost", 0), Handler)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield f"https://localhost:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def ask(url: str) -> int:
    with Way(httpx.URL(url)).open_client(timeout_s=60) as client:
        return client.get(url).status_code


def test_only_a_known_authority_is_trusted(encrypted: str, certificate: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(httpx.ConnectError, match="certificate"):
        ask(encrypted)
    monkeypatch.setattr("certifi.where", lambda: str(certificate))
    assert ask(encrypted) == 204


def test_the_certificates_of_the_environment_are_trusted(
    encrypted: str, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    assert ask(encrypted) == 204


@pytest.mark.parametrize(
    ("url", "whole"),
    [
        ("http://localhost:8000", "http://localhost:8000/predict"),
        ("https://example/base/?top_k=1#x", "https://example/base/predict"),
        ("http://example/base/predict/", "http://example/base/predict"),
    ],
)
def test_the_path_is_appended_to_a_service_url(url: str, whole: str) -> None:
    assert parse_service_url(url, "/predict").geturl() == whole


@pytest.mark.parametrize(
    "url", ["localhost:8000", "ftp://host", "http://", "http://host:0", "http://a b", "http://a..b"]
)
def test_a_url_of_no_service_is_refused(url: str) -> None:
    with pytest.raises(InvalidParameter, match="no address"):
        parse_service_url(url, "/predict")
