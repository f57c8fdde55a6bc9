import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager, ExitStack, aclosing
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from support.fakes import Loader
from support.listening import listening
from support.predictions import prediction, problem
from support.scripted_server import ScriptedServer, http, scripted_server

from service.client import AsyncClient, Prediction, Retries
from service.errors import (
    AnswerLost,
    ClientError,
    ClientTimeout,
    ForeignAnswer,
    InvalidParameter,
    RefusedByService,
    ServiceUnreachable,
    UnreadableImage,
)

pytestmark = pytest.mark.anyio


class Pauses(list[float]):
    """Pauses of a client that does not wait in truth, and that has no jitter."""

    async def sleep(self, seconds: float) -> None:
        self.append(seconds)

    @property
    def retries(self) -> Retries:
        return Retries(random=lambda: 0.0, sleep=self.sleep)


@pytest.fixture
def pauses() -> Pauses:
    return Pauses()


def script_of(*answers: bytes | None) -> Callable[[int], Awaitable[bytes | None]]:
    """The last answer is given again and again."""

    async def script(number: int) -> bytes | None:
        return answers[min(number, len(answers) - 1)]

    return script


def url_of(server: ScriptedServer) -> str:
    return f"http://127.0.0.1:{server.port}"


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


HALF = http(body=b"x" * 100)[:-50].replace(b"\r\n", b"\r\nConnection: close\r\n", 1)


async def test_an_image_is_sent_as_the_multipart_field_file(tmp_path: Path) -> None:
    (tmp_path / "secret name.jpg").write_bytes(b"photograph")
    with scripted_server(script_of(prediction())) as server:
        async with AsyncClient(f"{url_of(server)}/") as client:
            answer = await client.predict(tmp_path / "secret name.jpg", top_k=2)
    assert (answer.request_id, answer.model, answer.version, answer.label) == ("0193", "flowers", 3, "roses")
    assert server.heads[0].startswith("post /predict?top_k=2 http/1.1\r\n")
    assert b'name="file"' in server.bodies[0]
    assert b"photograph" in server.bodies[0]
    assert b"secret" not in server.bodies[0], "its name stays here"


@pytest.mark.parametrize("end", ["", "/", "/predict", "/predict/", "/predict?top_k=1#x"])
@pytest.mark.parametrize("prefix", ["", "/flowers"])
async def test_the_address_may_be_that_of_predict(prefix: str, end: str) -> None:
    with scripted_server(script_of(prediction())) as server:
        async with AsyncClient(url_of(server) + prefix + end) as client:
            await client.predict(b"image")
    assert server.heads[0].startswith(f"post {prefix}/predict http/1.1")


@pytest.mark.parametrize("lost", [None, HALF, b"nonsense\r\n\r\n"])
async def test_a_lost_answer_is_asked_again(lost: bytes | None, pauses: Pauses) -> None:
    with scripted_server(script_of(lost, lost, lost, prediction())) as server:
        async with AsyncClient(url_of(server), retries=pauses.retries) as client:
            assert (await client.predict(b"image")).label == "roses"
    assert len(server.bodies) == 4
    assert all(b"\r\n\r\nimage\r\n" in body for body in server.bodies)


async def test_an_answer_is_asked_for_four_times_at_most(pauses: Pauses) -> None:
    with scripted_server(script_of(None)) as server:
        async with AsyncClient(url_of(server), retries=pauses.retries) as client:
            with pytest.raises(AnswerLost, match="gave no answer"):
                await client.predict(b"image")
    assert len(server.bodies) == 4


async def test_a_connection_closed_between_requests_costs_nothing(pauses: Pauses) -> None:
    closing = prediction().replace(b"Content-Type", b"X-Closing: Connection: close\r\nContent-Type")
    with scripted_server(script_of(closing)) as server:
        async with AsyncClient(url_of(server), retries=pauses.retries) as client:
            for _ in range(5):
                assert (await client.predict(b"image")).label == "roses"
    assert server.num_connections == 5


@pytest.mark.parametrize("status", [429, 503])
async def test_retry_after_is_honoured(status: int, pauses: Pauses) -> None:
    with scripted_server(script_of(problem(status, "overloaded", "7"), problem(status, "x"), prediction())) as server:
        async with AsyncClient(url_of(server), retries=pauses.retries) as client:
            assert (await client.predict(b"image")).label == "roses"
    assert pauses == [7.0, 0.0]


async def test_retry_after_beyond_the_deadline_ends_the_call(pauses: Pauses) -> None:
    with scripted_server(script_of(problem(503, "not-ready", "61"))) as server:
        async with AsyncClient(url_of(server), retries=pauses.retries) as client:
            with pytest.raises(RefusedByService) as caught:
                await client.predict(b"image")
    assert caught.value.problem is not None
    assert (caught.value.problem.type, caught.value.problem.status) == ("/problems/not-ready", 503)
    assert (len(server.bodies), pauses) == (1, [])


@pytest.mark.parametrize(
    "answer",
    [
        *(problem(415, "unsupported-image-format"), problem(401, "unauthorized"), problem(500, "internal-error")),
        *(problem(504, "deadline-exceeded"), http(404), http(200, b"<html>")),
        http(307).replace(b"\r\n", b"\r\nLocation: http://127.0.0.1:9/\r\n", 1),
    ],
)
async def test_other_answers_are_final(answer: bytes, pauses: Pauses) -> None:
    with scripted_server(script_of(answer)) as server:
        async with AsyncClient(url_of(server), retries=pauses.retries) as client:
            with pytest.raises(ClientError):
                await client.predict(b"image")
    assert len(server.bodies) == 1, "neither repeated nor sent elsewhere"


async def test_the_service_is_told_the_time_left() -> None:
    now = [0.0]

    async def sleep(seconds: float) -> None:
        now[0] += seconds

    with scripted_server(script_of(problem(503, "not-ready", "5"), prediction())) as server:
        retries = Retries(random=lambda: 0.5, clock=lambda: now[0], sleep=sleep)
        async with AsyncClient(url_of(server), retries=retries) as client:
            await client.predict(b"image", timeout_s=8)
    told = [head.split("x-request-timeout-ms: ")[1].split("\r\n")[0] for head in server.heads]
    assert told == ["8000", "2875"]


@pytest.mark.parametrize("is_dripping", [False, True])
async def test_the_deadline_ends_a_silent_and_a_slow_answer(is_dripping: bool) -> None:
    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n" if is_dripping else b"")
        gone = asyncio.create_task(reader.read())
        while not gone.done():
            await asyncio.wait([gone], timeout=0.02)
            writer.write(b"x" if is_dripping else b"")
        gone.exception()  # a closed or a reset connection
        writer.close()

    server = await asyncio.start_server(drip, "127.0.0.1", 0)
    async with server, AsyncClient(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}") as client:
        with pytest.raises(ClientTimeout, match=r"within 0\.2 s"):
            await asyncio.wait_for(client.predict(b"image", timeout_s=0.2), timeout=30)


async def test_a_huge_answer_is_not_read(pauses: Pauses) -> None:
    endless = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"100000\r\n" + bytes(2**20) + b"\r\n"
    chunks = b"100000\r\n" + bytes(2**20) + b"\r\n"
    with scripted_server(script_of(endless + 5 * chunks)) as server:
        async with AsyncClient(url_of(server), retries=pauses.retries) as client:
            with pytest.raises(ForeignAnswer, match="more than 4,194,304 bytes"):
                await client.predict(b"image")
    assert len(server.bodies) == 1
    assert "accept-encoding: identity\r\n" in server.heads[0]


async def test_connections_are_used_again() -> None:
    with scripted_server(script_of(prediction())) as server:
        async with AsyncClient(url_of(server)) as client:
            for _ in range(5):
                await client.predict(b"image")
    assert (server.num_connections, len(server.bodies)) == (1, 5)


async def test_the_key_is_in_a_header_and_nowhere_else(caplog: pytest.LogCaptureFixture, pauses: Pauses) -> None:
    caplog.set_level(logging.DEBUG)
    said: list[str] = []
    with scripted_server(script_of(prediction(), None, http(500), problem(401, "unauthorized"))) as server:
        url = url_of(server).replace("//", "//user:passw0rd@")
        async with AsyncClient(url, api_key="garden", headers={"X-More": "s3cret"}, retries=pauses.retries) as client:
            said += [repr(client), str(client)]
            for _ in range(3):
                outcome = await client.try_predict(b"image")
                said += [repr(outcome), str(outcome)]
    async with AsyncClient(url, api_key="garden", retries=pauses.retries) as client:
        with pytest.raises(ServiceUnreachable) as caught:
            await client.predict(b"image")
        said += [repr(caught.value), str(caught.value), repr(caught.value.__cause__)]
    assert all("x-api-key: garden\r\n" in head and "x-more: s3cret\r\n" in head for head in server.heads)
    assert "authorization: basic " in server.heads[0]
    everything = "\n".join([*said, caplog.text, *(head.split("\r\n")[0] for head in server.heads)])
    assert "127.0.0.1" in everything
    assert not [secret for secret in ("garden", "s3cret", "passw0rd") if secret in everything]


@pytest.mark.parametrize("key", ["gard\nen", "gardén", "gar\0den"])
def test_a_key_that_no_header_carries_is_refused(key: str) -> None:
    for arguments in ({"api_key": key}, {"headers": [("X-Key", key)]}, {"headers": {f"X-{key}": "1"}}):
        with pytest.raises(InvalidParameter, match="Give a name and a value in printable ASCII") as caught:
            AsyncClient(**arguments)
        assert "gar" not in str(caught.value)


@pytest.mark.parametrize(
    "url", ["", "localhost:8000", "ftp://localhost", "http://", "http://localhost:port", "/predict", "http://a..b"]
)
def test_an_address_of_no_service_is_refused(url: str) -> None:
    with pytest.raises(InvalidParameter, match="Write it like http://localhost:8000"):
        AsyncClient(url)


async def test_an_address_without_a_service_is_tried_four_times(pauses: Pauses) -> None:
    async with AsyncClient(f"http://127.0.0.1:{free_port()}", retries=pauses.retries) as client:
        with pytest.raises(ServiceUnreachable, match="No service answers at"):
            await client.predict(b"image")
    assert len(pauses) == 3


async def test_a_service_that_answered_is_waited_for(pauses: Pauses) -> None:
    """A restart takes longer than three retries."""
    with ExitStack() as returned:

        async def sleep(seconds: float) -> None:
            pauses.append(seconds)
            if len(pauses) == 20:
                returned.enter_context(scripted_server(script_of(prediction()), server.port))

        retries = Retries(random=lambda: 0.0, sleep=sleep)
        with scripted_server(script_of(prediction())) as server:
            client = AsyncClient(url_of(server), retries=retries)
            await client.predict(b"image")
        async with client:
            assert (await client.predict(b"image")).label == "roses"
    assert len(pauses) == 20


async def test_each_image_has_its_outcome_in_order(pauses: Pauses, tmp_path: Path) -> None:
    async def script(number: int) -> bytes:
        body = server.bodies[number]
        if b"bad" in body:
            return problem(422, "invalid-image")
        label = body.split(b"\r\n\r\n")[1].split(b"\r\n")[0].decode()
        await asyncio.sleep(0.05 if label == "0" else 0)  # the first one is the last to be answered
        return prediction(label=label)

    images: list[Any] = [b"0", b"1", b"bad", tmp_path / "missing.jpg", b"4", None, b"6"]
    with scripted_server(script) as server:
        async with AsyncClient(url_of(server)) as client:
            outcomes = [outcome async for outcome in client.predict_many(images, concurrency=3)]
    labels = [outcome.label if isinstance(outcome, Prediction) else type(outcome) for outcome in outcomes]
    assert labels == ["0", "1", RefusedByService, UnreadableImage, "4", UnreadableImage, "6"]


async def test_concurrency_bounds_the_requests_in_flight() -> None:
    arrived = 0
    all_here = asyncio.Event()

    async def script(_: int) -> bytes:
        nonlocal arrived
        arrived += 1
        if arrived == 4:
            all_here.set()
        await all_here.wait()
        return prediction()

    with scripted_server(script) as server:
        async with AsyncClient(url_of(server)) as client:
            outcomes = [one async for one in client.predict_many([b"image"] * 20, concurrency=4)]
    assert len(outcomes) == 20
    assert server.most_at_once == 4


async def test_leaving_the_results_cancels_the_rest() -> None:
    async def script(number: int) -> bytes:
        if b"first" not in server.bodies[number]:
            await asyncio.Event().wait()
        return prediction()

    with scripted_server(script) as server:
        async with AsyncClient(url_of(server)) as client:
            images, tasks = iter([b"first", *[b"other"] * 99]), asyncio.all_tasks()
            async with aclosing(client.predict_many(images, concurrency=3)) as outcomes:
                async for _ in outcomes:
                    break
            assert asyncio.all_tasks() == tasks
            assert len(list(images)) == 97


async def test_wrong_bounds_are_refused_before_any_request() -> None:
    async with AsyncClient(f"http://127.0.0.1:{free_port()}") as client:
        for arguments in ({"concurrency": 0}, {"timeout_s": 0}):
            with pytest.raises(InvalidParameter):
                _ = [one async for one in client.predict_many([b"image"], **arguments)]
        with pytest.raises(InvalidParameter, match="no folder"):
            _ = [one async for one in client.predict_folder("/dev/null")]


async def test_two_restarts_lose_and_double_no_photograph(tmp_path: Path, store: Path) -> None:
    """The service goes and comes back on its port, while photographs of one shade each go through."""
    for shade in range(200):
        Image.new("RGB", (8, 8), (shade, 0, 0)).save(tmp_path / f"{shade:03d}.png")
    port = free_port()

    def start() -> AbstractContextManager[str]:
        service = listening(store, port, Loader())
        service.__enter__()
        return service

    async def restart(service: AbstractContextManager[str]) -> AbstractContextManager[str]:
        await asyncio.to_thread(service.__exit__, None, None, None)
        return await asyncio.to_thread(start)

    answered: list[tuple[str, float]] = []
    restarted = asyncio.create_task(asyncio.to_thread(start))
    await restarted
    async with AsyncClient(f"http://127.0.0.1:{port}", retries=Retries(first_pause_s=0.02, max_pause_s=0.1)) as client:
        async for path, outcome in client.predict_folder(tmp_path):
            assert isinstance(outcome, Prediction), outcome
            of_first_class = {score.label: score.probability for score in outcome.predictions}["daisy"]
            answered.append((path.name, round(of_first_class * 512, 3)))
            if len(answered) in (60, 130):
                restarted = asyncio.create_task(restart(await restarted))
    (await restarted).__exit__(None, None, None)
    assert answered == [(f"{shade:03d}.png", shade) for shade in range(200)]
