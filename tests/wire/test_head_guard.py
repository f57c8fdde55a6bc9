"""Over a real socket, with uvicorn: what a head may weigh and how long it may take, and what a broken one is told."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from unittest.mock import AsyncMock, patch

import pytest
from support.drawing import draw_photograph, encode
from support.fakes import Loader
from support.running import running
from support.wires import GET, Wire, full_queue, on_the_wire, predict, read_answer
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from service.errors import QueueFull
from service.wire import clocks, linger
from service.wire.heads import MAX_HEAD_BYTES

pytestmark = pytest.mark.anyio


@pytest.fixture
async def wire(store: Path, loader: Loader, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Wire]:
    monkeypatch.setattr(linger, "LINGER_S", 0.05)
    monkeypatch.setattr(clocks, "TICK_S", 0.02)
    async with running(store, loader) as service, on_the_wire(service) as wire:
        yield wire


@pytest.mark.parametrize(
    "head",
    [
        GET + b"X-Long: " + b"x" * MAX_HEAD_BYTES + b"\r\n\r\n",
        GET + b"x" * MAX_HEAD_BYTES + b": 1\r\n\r\n",
        GET + b"".join(b"X-%d: 1\r\n" % number for number in range(10_000)) + b"\r\n",
        b"GET /livez?" + b"x" * MAX_HEAD_BYTES + b" HTTP/1.1\r\n\r\n",
        GET + b"X-Endless: " + b"x" * 2_000_000,
    ],
    ids=["value", "field name", "many fields", "address", "without an end"],
)
async def test_a_huge_head_is_refused(wire: Wire, head: bytes) -> None:
    await wire.refused(head, "head-too-large", 431)


async def test_a_refused_head_keeps_its_request_id(wire: Wire) -> None:
    head = GET + b"X-Request-ID: mine\r\nX-Long: " + b"x" * MAX_HEAD_BYTES + b"\r\n\r\n"
    _, headers, _ = await wire.send(head)
    assert headers["x-request-id"] == "mine"


@pytest.mark.parametrize(
    "head",
    [
        b"GET /livez HTTP/1.1\r\n\r\n",
        b"GET /livez HTTP/1.1\r\nHost: a\r\nhost: b\r\n\r\n",
        b"GET /livez HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n",
    ],
    ids=["none", "two", "two of 1.0"],
)
async def test_a_request_goes_to_one_host(wire: Wire, head: bytes) -> None:
    """Else a proxy may mean another one than the service: RFC 9112, section 3.2."""
    await wire.refused(head, "malformed-request", 400, "one Host header")


async def test_http_1_0_need_not_name_a_host(wire: Wire) -> None:
    assert (await wire.send(b"GET /livez HTTP/1.0\r\n\r\n"))[0] == 200


async def test_a_head_with_many_cookies_is_taken(wire: Wire) -> None:
    cookies = b"Cookie: " + b"c" * (MAX_HEAD_BYTES - 1024) + b"\r\n"
    assert (await wire.send(GET + cookies + b"Connection: close\r\n\r\n"))[0] == 200


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"POST /predict HTTP/1.1\r\nHost: f\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST /predict HTTP/1.1\r\nHost: f\r\nContent-Length: 4\r\nContent-Length: 5\r\n\r\nabcde",
        b"POST /predict HTTP/1.1\r\nHost: f\r\nContent-Length: -4\r\n\r\n",
        b"POST /predict HTTP/1.1\r\nHost: f\r\nContent-Length: 99999999999999999999999\r\n\r\n",
        GET + b"No colon\r\n\r\n",
        GET + b"Nul: \x00\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",  # TLS, to a port without it
    ],
    ids=["both lengths", "two lengths", "negative", "huge length", "no colon", "nul", "address", "tls"],
)
async def test_what_cannot_be_read_is_a_malformed_request(wire: Wire, request_bytes: bytes) -> None:
    await wire.refused(request_bytes, "malformed-request", 400, "cannot be parsed as HTTP/1.1")


async def test_an_endless_head_and_a_silent_connection_are_ended(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clocks, "HEAD_TIMEOUT_S", 0.05)
    await wire.refused(GET + b"X-Slow: ", "body-too-slow", 408, "headers did not arrive within")
    assert await wire.send(b"") == (0, {}, b"")


@pytest.mark.parametrize("is_first", [True, False])
async def test_empty_lines_gain_no_time(wire: Wire, monkeypatch: pytest.MonkeyPatch, is_first: bool) -> None:
    """Neither before the first request nor between two."""
    monkeypatch.setattr(clocks, "HEAD_TIMEOUT_S", 0.2)

    async def lasts(first: bytes, each: bytes) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", wire.port)
        if not is_first:
            writer.write(GET + b"\r\n")
            await read_answer(reader)
        writer.write(first)
        reading = asyncio.create_task(reader.read())
        async with asyncio.timeout(10):
            while not reading.done():
                with suppress(ConnectionError):
                    writer.write(each)
                await asyncio.wait([reading], timeout=0.02)
        writer.close()
        return b"" if reading.exception() else reading.result()

    cases = ((b"\r\n", b""), (b"\n", b""), (b"\r\n" * 20, b""), (b"\r\n", b"\r\n"), (b"\n", b"\n"), (b"\r\nG", b""))
    answers = await asyncio.gather(*(lasts(*case) for case in cases))
    assert [b"HTTP/1.1 408" in answer for answer in answers] == [False] * 5 + [True]


async def test_a_sender_of_single_bytes_gains_no_time(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clocks, "HEAD_TIMEOUT_S", 0.1)
    reader, writer = await asyncio.open_connection("127.0.0.1", wire.port)
    writer.write(GET)

    async def trickle() -> None:
        while True:
            writer.write(b"x")
            await asyncio.sleep(0.005)

    trickling = asyncio.create_task(trickle())
    async with asyncio.timeout(10):
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 408 ")
    trickling.cancel()  # only now: who goes on sending is reset, and may lose what had not been read
    writer.close()


async def test_a_late_rest_of_a_body_gains_no_time(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clocks, "HEAD_TIMEOUT_S", 0.1)
    reader, writer = await asyncio.open_connection("127.0.0.1", wire.port)
    writer.write(b"POST /nothing HTTP/1.1\r\nHost: flowers\r\nContent-Length: 1000\r\n\r\n")
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 404 ")
    writer.write(b"x")
    async with asyncio.timeout(10):
        await reader.read()  # closed, though 999 bytes have not come
    writer.close()


async def test_requests_one_after_another_share_a_connection(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clocks, "HEAD_TIMEOUT_S", 0.05)
    reader, writer = await asyncio.open_connection("127.0.0.1", wire.port)
    for path, body in [(b"/nothing", b"x" * 100), (b"/nothing", b"x" * 100), (b"/livez", b"")]:
        writer.write(b"GET %b HTTP/1.1\r\nHost: flowers\r\nContent-Length: %d\r\n\r\n" % (path, len(body)))
        head = await reader.readuntil(b"\r\n\r\n")
        writer.write(body)
        length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        await reader.readexactly(length)
        await asyncio.sleep(0.1)  # longer than a head may take: nothing is owed between two requests
    assert head.startswith(b"HTTP/1.1 200 ")
    writer.close()


@pytest.mark.parametrize("path", [b"/livez", b"/metrics", b"/nothing"])
async def test_a_sender_that_will_ask_no_more_is_answered(wire: Wire, path: bytes) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", wire.port)
    writer.write(b"GET %b HTTP/1.1\r\nHost: flowers\r\n\r\n" % path)
    writer.write_eof()
    head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 ")
    assert f"content-length: {len(body)}" in head.decode().lower().split("\r\n")
    writer.close()


async def test_a_plain_request_without_room_keeps_its_connection(wire: Wire) -> None:
    """Twice, the second before its body has come; then a question that the app answers, on the same connection."""
    asked = AsyncMock(side_effect=AssertionError("the app was asked"))
    reader, writer = await asyncio.open_connection("127.0.0.1", wire.port)
    with full_queue(wire), patch.object(RequestResponseCycle, "run_asgi", asked):
        writer.write(predict(b"X-Request-ID: abc", body=b"x" * 70_000))
        first = await read_answer(reader)
        writer.write(predict(body=b"x" * 70_000)[:-30_000])
        second = await read_answer(reader)
    for head, problem in (first, second):
        assert head.startswith("http/1.1 429 ")
        assert "retry-after: 1\r\n" in head
        assert "x-content-type-options: nosniff" in head
        assert "connection:" not in head
        assert (problem["type"], problem["detail"].split(",")[0]) == ("/problems/overloaded", "128 images already wait")
        assert f"x-request-id: {problem['request_id']}\r\n" in head
    assert first[1]["request_id"] == "abc"
    writer.write(b"x" * 30_000 + GET + b"\r\n")
    assert (await read_answer(reader))[0].startswith("http/1.1 200 ")
    writer.close()
    text = (await wire.service.client.get("/metrics")).text
    assert 'flowers_requests_total{method="POST",route="/predict",status="429"} 2.0' in text
    assert 'flowers_request_duration_seconds_count{route="/predict",status="429"} 2.0' in text
    assert 'flowers_problems_total{type="overloaded"} 2.0' in text


@pytest.mark.parametrize(
    "request_bytes",
    [
        predict(b"Connection: close"),
        predict(b"Origin: http://shop.example", b"Connection: close"),
        b"POST /predict HTTP/1.1\r\nHost: f\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n",
        b"POST /predict HTTP/1.0\r\nContent-Length: 0\r\n\r\n",
        b"POST /predict HTTP/1.1\r\nHost: f\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"POST /predict HTTP/1.1\r\nHost: f\r\nContent-Length: 1048577\r\n\r\n",
    ],
    ids=["close", "browser", "expect", "http/1.0", "chunked", "large"],
)
async def test_the_app_refuses_special_requests_without_room(wire: Wire, request_bytes: bytes) -> None:
    with full_queue(wire):
        status, headers, _ = await wire.send(request_bytes)
    assert (status, headers["connection"], headers["retry-after"]) == (429, "close", "1")


async def test_a_request_does_not_take_its_own_place(store: Path, loader: Loader) -> None:
    """It is expected from its head on, and counted when it has come: there is room for one."""
    photograph = encode(draw_photograph(0, seed=1))
    async with running(store, loader, max_queue_size=1) as service, on_the_wire(service) as wire:
        for _ in range(3):
            status, _, _ = await wire.send(predict(b"Content-Type: image/jpeg", b"Connection: close", body=photograph))
            assert status == 200
            reader, writer = await asyncio.open_connection("127.0.0.1", wire.port)
            writer.write(predict(b"Content-Type: image/jpeg", body=photograph))
            assert (await read_answer(reader))[0].startswith("http/1.1 200 ")
            writer.close()


@pytest.mark.parametrize("request_id", ['"', "\\", r"\u0000", "a" * 128])
async def test_an_early_refusal_repeats_any_request_id(wire: Wire, request_id: str) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", wire.port)
    with full_queue(wire):
        writer.write(predict(f"X-Request-ID: {request_id}".encode()))
        head, problem = await read_answer(reader)
    writer.close()
    assert problem["request_id"] == request_id
    assert f"x-request-id: {request_id}\r\n" in head


async def test_refusals_shorten_the_queue_to_the_engine_s_need(
    wire: Wire, loader: Loader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.inference.admission._JUDGED_EVERY_S", 0.0)
    reader, writer = await asyncio.open_connection("127.0.0.1", wire.port)
    rooms = []
    with full_queue(wire):
        for _ in range(8):
            writer.write(predict())
            assert (await read_answer(reader))[0].startswith("http/1.1 429 ")
            rooms.append(wire.service.service.admission.max_waiting)
    writer.close()
    assert rooms == [128, 64, 32, 16, 8, 4, 2, 2]
    assert loader.engines[1].min_queue_size == 2


async def test_a_missing_key_is_refused_before_a_full_queue(store: Path, loader: Loader) -> None:
    key = "a-key-of-32-characters-000000001"
    async with running(store, loader, api_keys=key) as service, on_the_wire(service) as wire:
        reader, writer = await asyncio.open_connection("127.0.0.1", wire.port)
        with full_queue(wire):
            statuses = []
            for header in (b"X-API-Key: another", f"Authorization: Bearer {key}".encode(), b"X-Request-ID: abc"):
                writer.write(predict(header))
                statuses.append((await read_answer(reader))[0].split()[1])
        writer.close()
    assert statuses == ["401", "429", "401"]


async def test_while_draining_a_refusal_closes_its_connection(wire: Wire) -> None:
    wire.service.service.health.is_draining = True
    with full_queue(wire):
        assert (await wire.send(predict()))[1]["connection"] == "close"


async def test_a_refusal_never_overtakes_an_answer(wire: Wire) -> None:
    """Two requests in one write: the second may not overtake the first, which has room."""
    reader, writer = await asyncio.open_connection("127.0.0.1", wire.port)
    admission = wire.service.service.admission
    with patch.object(admission, "expect", side_effect=[None, QueueFull("full")]):
        writer.write(predict() + predict())
        first, second = await read_answer(reader), await read_answer(reader)
    assert first[1]["type"] == "/problems/missing-image"
    assert second[1]["type"] == "/problems/overloaded"
    writer.close()


_NO_COLON = GET + b"No colon\r\n\r\n"
_BROKEN_CHUNK = b"POST /predict HTTP/1.1\r\nHost: f\r\nTransfer-Encoding: chunked\r\n\r\nno size\r\n"


@pytest.mark.parametrize(
    ("broken", "status"),
    [
        (_NO_COLON, "400"),
        (b"GET /livez HTTP/1.1\r\n\r\n", "400"),
        (GET + b"X-Long: " + b"x" * MAX_HEAD_BYTES + b"\r\n\r\n", "431"),
        (_BROKEN_CHUNK, "400"),
    ],
    ids=["no colon", "no host", "long", "chunk"],
)
@pytest.mark.parametrize("num_before", [1, 2])
async def test_a_malformed_request_waits_for_earlier_answers(
    wire: Wire, broken: bytes, status: str, num_before: int
) -> None:
    """In one write: an answer that comes early is taken for that of another request."""
    reader, writer = await asyncio.open_connection("127.0.0.1", wire.port)
    writer.write((GET + b"\r\n") * num_before + broken)
    statuses = [(await read_answer(reader))[0].split()[1] for _ in range(num_before + 1)]
    assert statuses == ["200"] * num_before + [status]
    assert await reader.read() == b""  # and nothing after it
    writer.close()


@pytest.mark.parametrize("path", [b"/livez", b"/nothing", b"/predict"])
@pytest.mark.parametrize("expect", [b"", b"Expect: 100-continue\r\n"])
async def test_a_broken_body_has_one_answer(wire: Wire, path: bytes, expect: bytes) -> None:
    """The app, which has begun with the request or is about to, says nothing after it."""
    broken = b"POST %b HTTP/1.1\r\nHost: f\r\n%bTransfer-Encoding: chunked\r\n\r\nno size\r\n" % (path, expect)
    reader, writer = await asyncio.open_connection("127.0.0.1", wire.port)
    writer.write(broken)
    answers = await reader.read()
    writer.close()
    assert answers.startswith(b"HTTP/1.1 400 ")
    assert answers.count(b"HTTP/1.1 ") == 1


async def test_what_breaks_after_the_answer_is_not_answered_again(wire: Wire) -> None:
    """The connection is read on for a while after an early answer, lest the sender loses it."""
    reader, writer = await asyncio.open_connection("127.0.0.1", wire.port)
    writer.write(b"POST /nothing HTTP/1.1\r\nHost: f\r\nTransfer-Encoding: chunked\r\n\r\n")
    assert (await read_answer(reader))[0].split()[1] == "404"
    writer.write(b"no size\r\n")
    assert await reader.read() == b""
    writer.close()


async def test_a_head_may_follow_a_large_body_at_once(wire: Wire) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", wire.port)
    body = b"x" * (2 * MAX_HEAD_BYTES)
    writer.write(b"POST /nothing HTTP/1.1\r\nHost: f\r\nContent-Length: %d\r\n\r\n" % len(body) + body + GET[:-20])
    first = (await read_answer(reader))[0]
    writer.write(GET[-20:] + b"\r\n")
    assert [first.split()[1], (await read_answer(reader))[0].split()[1]] == ["404", "200"]
    writer.close()


async def test_a_broken_body_is_refused_while_the_app_reads(wire: Wire) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", wire.port)
    writer.write(_BROKEN_CHUNK.removesuffix(b"no size\r\n"))
    while not wire.service.service.admission.num_requests:
        await asyncio.sleep(0.001)
    writer.write(b"no size\r\n")
    assert (await read_answer(reader))[0].split()[1] == "400"
    writer.close()


async def test_requests_that_come_at_once_count_each_other(wire: Wire) -> None:
    """The app hears of each in the next turn of the event loop: there is room for one of three."""
    connections = [await asyncio.open_connection("127.0.0.1", wire.port) for _ in range(3)]
    for reader, writer in connections:  # accepted, so that what follows is read in one turn
        writer.write(GET + b"\r\n")
        await read_answer(reader)
    asked = AsyncMock()
    with full_queue(wire, room=1), patch.object(RequestResponseCycle, "run_asgi", asked):
        for _, writer in connections:
            writer.write(predict())
        reading = [asyncio.ensure_future(read_answer(reader)) for reader, _ in connections]
        _, pending = await asyncio.wait(reading, timeout=0.5)
    for task in pending:
        task.cancel()
    assert (asked.call_count, len(pending)) == (1, 1)
    for _, writer in connections:
        writer.close()
