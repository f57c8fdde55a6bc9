from pathlib import Path

import httpx
import pytest

from service.errors import SettingsError
from service.http_client import Way

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
