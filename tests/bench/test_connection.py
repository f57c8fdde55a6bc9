import asyncio
import socket

import pytest
from support.scripted_server import ScriptedServer, http, scripted_server

from service.bench.connection import (
    NOT_HTTP,
    REFUSED,
    RESET,
    TIMEOUT,
    Connection,
    Response,
    Target,
    find_error,
    parse_target,
)
from service.bench.generator import run
from service.errors import InvalidParameter


def target_of(server: ScriptedServer) -> Target:
    return Target("127.0.0.1", server.port, "/predict")


def ask_in_turn(target: Target, count: int, timeout_s: float = 5.0) -> list[Response]:
    """On one `Connection`, one after the other."""

    async def ask() -> list[Response]:
        connection = Connection(target)
        responses = [await connection.ask(target.post(b"%d" % i, "text/plain"), timeout_s) for i in range(count)]
        connection.close()
        return responses

    return run(ask())


def test_one_connection_carries_one_request_after_the_other() -> None:
    async def script(number: int) -> bytes:
        return http(body=b"answer %d" % number)

    with scripted_server(script) as server:
        responses = ask_in_turn(target_of(server), 3)
    assert [response.body for response in responses] == [b"answer 0", b"answer 1", b"answer 2"]
    assert {(response.status, response.media_type) for response in responses} == {(200, "application/json")}
    assert server.bodies == [b"0", b"1", b"2"]
    assert server.num_connections == 1


def test_a_chunked_answer_after_an_interim_one_is_whole() -> None:
    async def script(_: int) -> bytes:
        chunks = b"4\r\nfirs\r\n2\r\nt!\r\n0\r\n\r\n"
        return b"HTTP/1.1 103 Early\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks

    with scripted_server(script) as server:
        assert [response.body for response in ask_in_turn(target_of(server), 2)] == [b"first!"] * 2


def test_a_lost_connection_is_reported_and_opened_again() -> None:
    async def script(number: int) -> bytes | None:
        return None if number == 0 else http()

    with scripted_server(script) as server:
        lost, answered = ask_in_turn(target_of(server), 2)
    assert (lost.status, lost.failure) == (0, RESET)
    assert (answered.status, answered.failure) == (200, "")
    assert server.num_connections == 2


def test_a_late_answer_is_not_the_next_one_s() -> None:
    async def script(number: int) -> bytes:
        if number == 0:
            await asyncio.sleep(0.1)
        return http(body=b"answer %d" % number)

    with scripted_server(script) as server:
        late, next_one = ask_in_turn(target_of(server), 2, timeout_s=0.05)
    assert late.failure == TIMEOUT
    assert next_one.body == b"answer 1"


def test_what_is_no_http_is_said_to_be_none() -> None:
    async def script(_: int) -> bytes:
        return b"SSH-2.0-Server\r\n\r\n"

    with scripted_server(script) as server:
        assert ask_in_turn(target_of(server), 1)[0].failure == NOT_HTTP


def test_nobody_listening_is_a_refused_connection() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    assert ask_in_turn(Target("127.0.0.1", port, "/"), 1)[0].failure == REFUSED


@pytest.mark.parametrize(
    ("url", "target"),
    [
        ("http://localhost:8000", Target("localhost", 8000, "/predict")),
        ("http://localhost/", Target("localhost", 80, "/predict")),
        ("https://example/base", Target("example", 443, "/base/predict", is_encrypted=True)),
        ("http://[::1]:8000", Target("::1", 8000, "/predict")),
    ],
)
def test_an_address_is_taken_apart(url: str, target: Target) -> None:
    assert parse_target(url, "/predict") == target


@pytest.mark.parametrize(
    "url",
    [
        "localhost:8000",
        "ftp://host",
        "http://",
        "http://host:x",
        "http://a b",
        "http://[::1",
        "http://a..b",
        f"http://{64 * 'a'}",
    ],
)
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(InvalidParameter, match="no address"):
        parse_target(url, "/predict")


def test_an_ipv6_address_is_bracketed_in_the_host_header() -> None:
    assert b"\r\nHost: [::1]:8000\r\n" in Target("::1", 8000, "/").post(b"", "text/plain")


PROBLEM_TYPE = "application/problem+json"


@pytest.mark.parametrize(
    ("response", "error"),
    [
        (Response(200, "application/json", b'{"label": "roses"}'), ""),
        (Response(200, "text/html", b"<html>"), "not a prediction"),
        (Response(503, PROBLEM_TYPE, b'{"type": "/problems/draining"}'), "/problems/draining"),
        (Response(502, "text/html", b"<html>"), "status 502"),
        (Response(500, PROBLEM_TYPE, b"no JSON"), "status 500"),
        (Response(500, PROBLEM_TYPE, b"[]"), "status 500"),
        (Response(failure="timeout"), "timeout"),
    ],
)
def test_an_answer_that_is_no_prediction_has_a_kind(response: Response, error: str) -> None:
    assert find_error(response) == error


def test_a_problem_keeps_its_detail() -> None:
    assert Response(429, PROBLEM_TYPE, b'{"detail": "wait"}').read_problem() == {"detail": "wait"}


def test_a_closing_answer_ends_its_connection() -> None:
    """Before the server itself has closed it."""

    async def script(_: int) -> bytes:
        return http().replace(b"\r\n", b"\r\nConnection: close\r\n", 1)

    with scripted_server(script) as server:
        assert [response.status for response in ask_in_turn(target_of(server), 2)] == [200, 200]
    assert server.num_connections == 2


def test_a_media_type_is_told_without_its_parameters() -> None:
    async def script(_: int) -> bytes:
        return http(429, b'{"type": "/problems/overloaded"}', "Application/Problem+JSON; charset=utf-8")

    with scripted_server(script) as server:
        [response] = ask_in_turn(target_of(server), 1)
    assert find_error(response) == "/problems/overloaded"
