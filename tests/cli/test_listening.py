"""The socket that a service listens on."""

import errno
import os
import socket
from contextlib import ExitStack

import pytest

from service.cli.listening import greet, listen, url_of
from service.errors import FlowersError


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (socket.gaierror(-2, "unknown"), "is no address of this machine"),
        (OSError(errno.EADDRNOTAVAIL, "not available"), "is no address of this machine"),
        (PermissionError(errno.EACCES, "denied"), "Choose one above 1023 with --port"),
        (OSError(errno.EMFILE, "too many open files"), "too many open files"),
    ],
)
def test_an_address_that_cannot_be_had_is_explained(
    monkeypatch: pytest.MonkeyPatch, error: OSError, sentence: str
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("socket.create_server", fail)
    with pytest.raises(FlowersError, match=sentence):
        listen("127.0.0.1", 80)


def test_what_no_host_can_be_called_is_explained() -> None:
    with pytest.raises(FlowersError, match=r"a\.\.b is no address of this machine"):
        listen("a..b", 0)


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0", "::1", "::", "localhost"])
def test_it_listens_on_every_kind_of_address(host: str) -> None:
    if ":" in host and not socket.has_ipv6:
        pytest.skip("this machine has no IPv6")
    with ExitStack() as listeners:
        listener = listeners.enter_context(listen(host, 0))
        assert listener.getsockname()[1] > 0


def test_a_taken_port_is_explained() -> None:
    with listen("127.0.0.1", 0) as other:
        port = other.getsockname()[1]
        with pytest.raises(FlowersError, match=f"Port {port} of 127.0.0.1 is taken. .*FLOWERS_PORT"):
            listen("127.0.0.1", port)


def test_connections_queue_before_anything_accepts_them() -> None:
    with listen("127.0.0.1", 0) as listener, ExitStack() as clients:
        for _ in range(100):
            clients.enter_context(socket.create_connection(listener.getsockname()))


@pytest.mark.parametrize(("host", "written"), [("127.0.0.1", "127.0.0.1"), ("::1", "[::1]"), ("::", "[::]")])
def test_the_address_in_the_log_has_its_port(host: str, written: str) -> None:
    if ":" in host and not socket.has_ipv6:
        pytest.skip("this machine has no IPv6")
    with listen(host, 0) as listener:
        assert url_of(listener) == f"http://{written}:{listener.getsockname()[1]}"


@pytest.mark.parametrize(
    ("host", "shown", "log_format", "is_terminal"),
    [
        ("127.0.0.1", "127.0.0.1", "auto", True),
        ("0.0.0.0", "127.0.0.1", "console", True),
        ("127.0.0.1", None, "json", True),
        ("127.0.0.1", None, "auto", False),
    ],
)
def test_a_person_reads_where_the_service_is(
    host: str,
    shown: str | None,
    log_format: str,
    is_terminal: bool,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(os, "isatty", lambda _: is_terminal)
    with listen(host, 0) as listener:
        greet(listener, log_format)
        url = f"http://{shown}:{listener.getsockname()[1]}"
    lines = [f"The page is at {url}/.", f"The paths are at {url}/docs. Ctrl-C ends the service."]
    assert capsys.readouterr().err.splitlines() == (lines if shown else [])
