"""Where a request begins and ends, whatever it offers or hides. Each case has a connection of its own."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from support.drawing import draw_photograph, encode
from support.fakes import Loader
from support.running import running
from support.wires import GET, Wire, on_the_wire, read_answer

from service.wire import clocks, head_guard, heads, linger
from service.wire.heads import MAX_HEAD_BYTES

pytestmark = pytest.mark.anyio

PHOTO = encode(draw_photograph(0, seed=1))
KEY = b"X-API-Key: a-key-of-32-characters-000000001"
JPEG = b"Content-Type: image/jpeg"
CHUNKED = b"Transfer-Encoding: chunked"
OFFERS = {
    "h2c": [b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA"],
    "websocket": [b"Connection: keep-alive, Upgrade", b"upgrade:websocket", b"Sec-WebSocket-Version: 13"],
    "tls": [b"Connection: Upgrade", b"UPGRADE: TLS/1.0"],
    "two lines": [b"Connection: keep-alive", b"Connection: upgrade", b"Upgrade: h2c", b"Upgrade: websocket"],
}


@pytest.fixture
async def wire(store: Path, loader: Loader, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Wire]:
    monkeypatch.setattr(linger, "LINGER_S", 0.05)
    monkeypatch.setattr(clocks, "TICK_S", 0.02)
    key = KEY.split()[1].decode()
    async with running(store, loader, api_keys=key) as service, on_the_wire(service) as wire:
        yield wire


def request(method: bytes, target: bytes, *fields: bytes, version: bytes = b"HTTP/1.1", body: bytes = b"") -> bytes:
    length = [b"Content-Length: %d" % len(body)] if body else []
    return b"\r\n".join([method + b" " + target + b" " + version, b"Host: f", *fields, *length, b"", body])


def chunks(*pieces: bytes, trailers: bytes = b"") -> bytes:
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n" + trailers + b"\r\n"


async def statuses(wire: Wire, *pieces: bytes, num_answers: int = 0) -> list[tuple[int, str]]:
    """Status and request id of each answer to pieces that arrive one by one, until the connection closes.

    With `num_answers` no more than those are read.
    """
    reader, writer = await asyncio.open_connection("127.0.0.1", wire.port)
    reading = asyncio.create_task(_read_statuses(reader, num_answers))
    for piece in pieces:
        with suppress(ConnectionError):
            writer.write(piece)
        await asyncio.wait([reading], timeout=0.02)
    async with asyncio.timeout(20):
        answers = await reading
    writer.close()
    return answers


async def _read_statuses(reader: asyncio.StreamReader, num_answers: int) -> list[tuple[int, str]]:
    answers: list[tuple[int, str]] = []
    with suppress(asyncio.IncompleteReadError, ConnectionError):
        while not num_answers or len(answers) < num_answers:
            head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
            if head.startswith("http/1.1 100 "):
                continue
            request_id = head.split("x-request-id: ")[1].split("\r\n")[0]
            await reader.readexactly(int(head.split("content-length: ")[1].split("\r\n")[0]))
            answers.append((int(head.split()[1]), request_id))
    return answers


async def test_an_offer_to_upgrade_is_ignored(wire: Wire) -> None:
    last = request(b"GET", b"/livez", b"X-Request-ID: last", b"Connection: close")
    for offer in OFFERS.values():
        upload = request(b"POST", b"/predict", KEY, JPEG, *offer, b"X-Request-ID: first", body=PHOTO)
        stream = request(b"POST", b"/predict", KEY, JPEG, CHUNKED, *offer, b"X-Request-ID: first")
        for head, body in ((upload[: -len(PHOTO)], PHOTO), (stream, chunks(PHOTO[:700], PHOTO[700:]))):
            expected = [(200, "first"), (200, "last")]
            assert await statuses(wire, head + body + last) == expected
            assert await statuses(wire, head, body, last) == expected
            answers = await statuses(wire, GET + b"X-Request-ID: before\r\n\r\n" + head, body + last)
            assert answers == [(200, "before"), *expected]


async def test_the_body_of_an_offer_is_no_request(wire: Wire) -> None:
    inner = request(b"GET", b"/livez", b"X-Request-ID: smuggled")
    for name, offer in OFFERS.items():
        for method, target, fields in (
            (b"POST", b"/predict", [KEY, JPEG]),
            (b"POST", b"/predict", [JPEG]),
            (b"POST", b"/predict", [KEY, JPEG, b"Expect: 100-continue"]),
            (b"PUT", b"/", []),
            (b"GET", b"/livez", []),
        ):
            whole = request(method, target, *fields, *offer, b"X-Request-ID: outer", body=inner)
            head = whole[: -len(inner)]
            for before in (b"", GET + b"X-Request-ID: before\r\n\r\n"):
                answers = await statuses(wire, before + head, inner, num_answers=2 if before else 1)
                assert [request_id for _, request_id in answers][-1] == "outer", name
            after = await statuses(wire, whole + GET + b"X-Request-ID: after\r\nConnection: close\r\n\r\n")
            assert "smuggled" not in [request_id for _, request_id in after]


async def test_connect_ends_its_connection(wire: Wire) -> None:
    inner = request(b"GET", b"/livez", b"X-Request-ID: smuggled")
    for target in (b"/predict", b"*", b"http://f/livez", b"f:80"):
        answers = await statuses(wire, request(b"CONNECT", target) + inner, inner)
        assert [status for status, _ in answers] == [400], target
    assert b"CONNECT is for proxies" in (await wire.send(request(b"CONNECT", b"f:80")))[2]


async def test_a_trailer_never_changes_the_head(wire: Wire) -> None:
    for trailer, fields, status in (
        (b"X-Request-ID: from-trailer", [KEY], 200),
        (b"Content-Encoding: gzip", [KEY], 200),
        (b"X-Request-Timeout-Ms: never", [KEY], 200),
        (b"Content-Length: 5", [KEY], 200),
        (b"Host: another", [KEY], 200),
        (b"Connection: keep-alive, upgrade\r\nUpgrade: h2c", [KEY], 200),
        (b"No colon", [KEY], 400),
        (b"a: b\rc: d", [KEY], 400),
        (KEY, [], 401),
    ):
        head = request(b"POST", b"/predict", JPEG, CHUNKED, *fields, b"X-Request-ID: own", b"Connection: close")
        body = chunks(PHOTO, trailers=trailer + b"\r\n")
        for pieces in ([head + body], [head, body], [head, body[:-20], body[-20:]]):
            assert await statuses(wire, *pieces) == [(status, "own")], trailer


_MANY = b"a: b\r\n" * (MAX_HEAD_BYTES // 5)


async def test_what_lies_around_chunks_is_counted(wire: Wire) -> None:
    head = request(b"POST", b"/predict", KEY, JPEG, CHUNKED)
    for name, status, body in (
        ("fields", 431, b"1\r\na\r\n0\r\n" + _MANY),
        ("value", 431, b"1\r\na\r\n0\r\nfield: " + b"x" * MAX_HEAD_BYTES),
        ("name", 431, b"1\r\na\r\n0\r\n" + b"x" * (MAX_HEAD_BYTES + 1)),
        ("extension", 400, b"1;" + b"x" * 2 * MAX_HEAD_BYTES + b"\r\na\r\n"),
        ("extensions", 400, b"1;extension=of-some-length\r\na\r\n" * 10_000),
        ("zeros", 400, b"0" * 2 * MAX_HEAD_BYTES + b"1\r\na\r\n"),
        ("zeros again", 400, (b"0" * 100 + b"1\r\na\r\n") * 1_000),
    ):
        for pieces in ([head + body], [head, body], [head, body[: len(body) // 2], body[len(body) // 2 :]]):
            assert [found for found, _ in await statuses(wire, *pieces)] == [status], name


async def test_small_trailers_and_small_chunks_do_no_harm(wire: Wire) -> None:
    head = request(b"POST", b"/predict", KEY, JPEG, CHUNKED, b"Connection: close")
    body = chunks(*(PHOTO[at : at + 1] for at in range(len(PHOTO))), trailers=b"Checksum: 5\r\nDate: today\r\n")
    assert [status for status, _ in await statuses(wire, head + body)] == [200]
    pieces = [body[at : at + 5001] for at in range(0, len(body), 5001)]
    assert [status for status, _ in await statuses(wire, head, *pieces)] == [200]


async def test_empty_lines_before_a_head_count(wire: Wire) -> None:
    last = request(b"GET", b"/livez", b"Connection: close")
    assert [status for status, _ in await statuses(wire, b"\r\n\r\n\n" + last)] == [200]
    assert [status for status, _ in await statuses(wire, b"\r\n" * (MAX_HEAD_BYTES // 2) + last)] == [431]
    assert [status for status, _ in await statuses(wire, GET + b"\r\n" + b"\n" * MAX_HEAD_BYTES + last)] == [200, 431]


async def test_many_small_requests_wait_for_each_other(wire: Wire) -> None:
    """They wait as bytes. One at a time becomes objects."""
    num_requests = 1_100
    reader, writer = await asyncio.open_connection("127.0.0.1", wire.port)
    writer.write((GET + b"\r\n") * num_requests)
    in_flight = wire.service.service.metrics.in_flight
    for _ in range(num_requests):
        assert (await read_answer(reader))[0].startswith("http/1.1 200")
        assert _value(in_flight) <= 1
    writer.close()


def _value(gauge: Any) -> float:
    (metric,) = gauge.collect()
    return float(metric.samples[0].value)


async def test_tiny_chunks_leave_the_event_loop_to_others(wire: Wire) -> None:
    """100,000 of them arrive at once. A neighbour asks between, and is answered long before their end."""
    head = request(b"POST", b"/predict", KEY, JPEG, CHUNKED)
    reader, writer = await asyncio.open_connection("127.0.0.1", wire.port)
    turns = 0

    async def count_turns() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    counting = asyncio.create_task(count_turns())
    writer.write(head + chunks(*[b"x"] * 100_000))
    assert (await read_answer(reader))[0].split()[1] == "415"
    counting.cancel()
    writer.close()
    assert turns > 2 * 100_000 / head_guard.PARTS_A_TURN


_NO_FRAMING = (
    request(b"GET", b"/livez", version=b"HTTP/2.0"),
    request(b"GET", b"/livez", version=b"HTTP/3.0"),
    request(b"GET", b"/livez", version=b"HTTP/1.2"),
    request(b"GET", b"/livez", version=b"HTTP/0.9"),
    request(b"OPTIONS", b"*", version=b"RTSP/1.0"),
    request(b"SOURCE", b"/x", version=b"ICE/1.0"),
    b"GET /livez\r\n\r\n",
    b"GET /livez\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    request(b"POST", b"/predict", KEY, JPEG, b"Transfer-Encoding: gzip, chunked") + chunks(PHOTO),
    request(b"POST", b"/predict", KEY, JPEG, b"Transfer-Encoding: identity, chunked") + chunks(PHOTO),
    request(b"POST", b"/predict", KEY, JPEG, b"Transfer-Encoding: identity") + PHOTO,
    request(b"POST", b"/predict", KEY, JPEG, b"Transfer-Encoding: chunked, chunked") + chunks(PHOTO),
    request(b"POST", b"/predict", KEY, JPEG, b"Transfer-Encoding: gzip", CHUNKED) + chunks(PHOTO),
    request(b"POST", b"/predict", KEY, JPEG, CHUNKED, CHUNKED) + chunks(PHOTO),
    request(b"POST", b"/predict", KEY, JPEG, b"Transfer-Encoding:") + chunks(PHOTO),
    request(b"POST", b"/predict", KEY, JPEG, CHUNKED, version=b"HTTP/1.0") + chunks(PHOTO),
    request(b"POST", b"/predict", KEY, CHUNKED, b"Connection: keep-alive", version=b"HTTP/1.0") + chunks(PHOTO),
    request(b"POST", b"/predict", KEY, CHUNKED, b"Content-Length: 3") + chunks(PHOTO),
    request(b"POST", b"/predict", KEY, JPEG, CHUNKED) + chunks(b"abc").replace(b"\r\n", b"\n"),
)


async def test_a_wrong_framing_ends_its_connection(wire: Wire) -> None:
    for head in _NO_FRAMING:
        answers = await statuses(wire, head, request(b"GET", b"/livez", b"X-Request-ID: smuggled"))
        assert [status for status, _ in answers] == [400], head


async def test_an_invalid_host_is_refused(wire: Wire) -> None:
    for host in (b"a b", b"a/b", b"a@b", b"a:b", b'"', b"[::1", b"a:80:80", b"a\\", b"\xc3\xa4", b"%zz"):
        head = b"GET /livez HTTP/1.1\r\nHost: " + host + b"\r\n\r\n"
        assert [found for found, _ in await statuses(wire, head)] == [400], host


async def test_every_valid_host_is_taken(wire: Wire) -> None:
    for host in (
        b"",
        b"a",
        b"a.example:8000",
        b"a:",
        b"127.0.0.1",
        b"[::1]:8000",
        b"a_b",
        b"%41",
        b"xn--b-1ga.de",
    ):
        head = b"GET /livez HTTP/1.1\r\nHost: " + host + b"\r\nConnection: close\r\n\r\n"
        assert [found for found, _ in await statuses(wire, head)] == [200], host


async def test_numbers_of_thousands_of_digits_are_numbers(wire: Wire) -> None:
    """Python reads no more than 4,300 digits."""
    zeros = b"0" * 5_000
    for target, fields, status in (
        (b"/livez", [b"Content-Length: " + zeros], 200),
        (b"/nothing", [KEY, b"Content-Length: " + zeros], 404),
        (b"/predict", [KEY, b"Content-Length: " + zeros], 405),
    ):
        assert [found for found, _ in await statuses(wire, request(b"GET", target, *fields), num_answers=1)] == [status]
    upload = request(b"POST", b"/predict", KEY, JPEG, b"Content-Length: " + zeros + b"%d" % len(PHOTO))
    assert [found for found, _ in await statuses(wire, upload + PHOTO, num_answers=1)] == [200]
    for field in (b"Content-Length: " + b"9" * 5_000, b"X-Request-Timeout-Ms: " + b"9" * 5_000):
        body = b"" if field.startswith(b"C") else PHOTO
        answers = await statuses(wire, request(b"POST", b"/predict", KEY, JPEG, field, body=body), num_answers=1)
        assert [found for found, _ in answers] in ([400], [422])


async def test_1_0_is_not_told_to_continue(wire: Wire) -> None:
    fields = [KEY, JPEG, b"Expect: 100-continue"]
    reader, writer = await asyncio.open_connection("127.0.0.1", wire.port)
    writer.write(request(b"POST", b"/predict", *fields, version=b"HTTP/1.0", body=PHOTO))
    assert (await reader.read()).startswith(b"HTTP/1.1 200 ")
    writer.close()


async def test_an_answer_instead_of_continue_closes_the_connection(wire: Wire) -> None:
    """The client may leave its body out, and then its next request would be taken for it."""
    for fields in ([b"Expect: 100-continue"], [KEY, b"Expect: 100-continue", b"Content-Encoding: gzip"]):
        head = request(b"POST", b"/predict", JPEG, *fields, b"Content-Length: 50")
        answers = await statuses(wire, head, request(b"GET", b"/livez", b"X-Request-ID: swallowed"))
        assert [status for status, _ in answers] in ([401], [415])
        assert "swallowed" not in [request_id for _, request_id in answers]


async def test_a_client_that_waits_to_continue_is_told_so(wire: Wire) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", wire.port)
    writer.write(request(b"POST", b"/predict", KEY, JPEG, b"Expect: 100-continue", b"Content-Length: %d" % len(PHOTO)))
    assert (await reader.readuntil(b"\r\n\r\n")) == b"HTTP/1.1 100 Continue\r\n\r\n"
    writer.write(PHOTO + GET + b"\r\n")
    assert [(await read_answer(reader))[0].split()[1] for _ in range(2)] == ["200", "200"]
    writer.close()


async def test_an_error_of_head_has_no_body(wire: Wire) -> None:
    for request_bytes in (
        b"HEAD /livez HTTP/1.1\r\n\r\n",
        b"HEAD /livez HTTP/2.0\r\nHost: f\r\n\r\n",
        b"HEAD /livez HTTP/1.1\r\nHost: f\r\nNo colon\r\n\r\n",
        b"\r\nHEAD /livez HTTP/1.1\r\nHost: f\r\nX-Long: " + b"x" * MAX_HEAD_BYTES + b"\r\n\r\n",
        b"HEAD /livez HTTP/1.1\r\nHost: f\r\nTransfer-Encoding: chunked\r\n\r\nno size\r\n",
        b"HEAD /nothing HTTP/1.1\r\nHost: f\r\nConnection: close\r\n\r\n",
        b"HEAD /predict HTTP/1.1\r\nHost: f\r\nConnection: close\r\n\r\n",
    ):
        reader, writer = await asyncio.open_connection("127.0.0.1", wire.port)
        writer.write(request_bytes)
        head, _, body = (await reader.read()).partition(b"\r\n\r\n")
        writer.close()
        assert int(head.split()[1]) >= 400
        assert body == b""


async def test_want_of_memory_is_not_the_client_s_fault(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise MemoryError

    for owner, name in ((head_guard.HeadGuard, "on_body"), (heads, "check_fields")):
        with monkeypatch.context() as patched:
            patched.setattr(owner, name, fail)
            reader, writer = await asyncio.open_connection("127.0.0.1", wire.port)
            writer.write(request(b"POST", b"/predict", KEY, JPEG, body=PHOTO))
            head, _, body = (await reader.read()).partition(b"\r\n\r\n")
            writer.close()
            assert head.startswith(b"HTTP/1.1 503 "), name
            assert b"retry-after: " in head.lower()
            assert json.loads(body)["type"] == "/problems/overloaded"


async def test_trailers_count_apart_from_extensions(wire: Wire) -> None:
    """Each may have 32 KiB."""
    head = request(b"POST", b"/predict", KEY, JPEG, CHUNKED, b"Connection: close")
    extended = b"%x;%b\r\n%b\r\n" % (len(PHOTO), b"x" * 30_000, PHOTO)
    body = extended + b"0\r\nnote: " + b"x" * 30_000 + b"\r\n\r\n"
    assert [status for status, _ in await statuses(wire, head + body)] == [200]
