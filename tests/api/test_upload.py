"""The way in: what is taken, when it is refused, and how a refusal reaches the sender."""

import asyncio
import gc
import threading
import tracemalloc
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from python_multipart.multipart import MultipartParser
from starlette.requests import Request
from support.drawing import draw_photograph, encode
from support.fakes import Loader
from support.running import Running, running
from support.tickets import open_ticket

from service.api import upload
from service.api.multipart import Pieces, Upload
from service.api.upload import UploadLimits, read_image
from service.errors import (
    FlowersError,
    RequestError,
    UnsupportedMediaType,
)

pytestmark = pytest.mark.anyio

PHOTO = encode(draw_photograph(0, seed=1))


@pytest.fixture
async def service(store: Path, loader: Loader) -> AsyncIterator[Running]:
    async with running(store, loader, max_image_bytes=100_000) as service:
        yield service


def multipart(*parts: tuple[str, bytes], end: bytes = b"--b--\r\n") -> bytes:
    body = b""
    for disposition, content in parts:
        body += b"--b\r\nContent-Disposition: form-data; " + disposition.encode() + b"\r\n\r\n" + content + b"\r\n"
    return body + end


@pytest.mark.parametrize("end", [b"--b--\r\n", b""], ids=["whole", "cut short"])
async def test_a_form_is_gone_without_a_collection(end: bytes) -> None:
    """Collections are rare, and each form holds up to 20 MiB."""
    gc.collect()
    gc.disable()
    try:
        with suppress(FlowersError):
            await read(multipart(('name="file"', PHOTO), end=end), "multipart/form-data; boundary=b", [100_000])
        assert not [held for held in gc.get_objects() if isinstance(held, MultipartParser)]
    finally:
        gc.enable()


async def read(body: bytes, content_type: str, sizes: list[int], is_busy: Callable[[], bool] = lambda: False) -> bytes:
    """The image of a body that arrives in chunks of these sizes, over and over."""
    return (await read_all(body, content_type, sizes, is_busy)).image


async def read_all(
    body: bytes, content_type: str, sizes: list[int], is_busy: Callable[[], bool] = lambda: False
) -> Upload:
    position, turn = 0, 0

    async def receive() -> dict[str, Any]:
        nonlocal position, turn
        size = sizes[turn % len(sizes)]
        chunk = body[position : position + size]
        position, turn = position + size, turn + 1
        return {"type": "http.request", "body": chunk, "more_body": position < len(body)}

    headers = [(b"content-type", content_type.encode()), (b"content-length", str(len(body)).encode())]
    request = Request({"type": "http", "headers": headers, "state": {}}, receive)
    with open_ticket() as ticket:
        return await read_image(request, ticket, UploadLimits(20_000_000, body_timeout_s=30, is_busy=is_busy))


@pytest.mark.parametrize(("num_mebibytes", "is_busy", "pauses"), [(4, True, 0), (10, False, 0), (10, True, 6)])
async def test_a_large_body_pauses_between_pieces(
    monkeypatch: pytest.MonkeyPatch, num_mebibytes: int, is_busy: bool, pauses: int
) -> None:
    num_pauses = 0

    async def pause(seconds: float) -> None:
        nonlocal num_pauses
        num_pauses += 1
        assert seconds == upload.PAUSE_S

    monkeypatch.setattr(asyncio, "sleep", pause)
    await read(bytes(num_mebibytes * 1024 * 1024), "image/jpeg", [1024 * 1024], lambda: is_busy)
    assert num_pauses == pauses


@pytest.mark.parametrize("is_form", [True, False])
async def test_a_large_body_is_joined_beside_the_event_loop(is_form: bool) -> None:
    """Its 13 MB would take milliseconds, in which nobody gets an answer."""
    threads = []
    finish = Pieces.finish

    def watched(pieces: Pieces) -> Upload:
        threads.append(threading.current_thread())
        return finish(pieces)

    with patch.object(Pieces, "finish", watched):
        for num_mebibytes in (13, 1):
            image = bytes(num_mebibytes * 1024 * 1024)
            body = multipart(('name="file"', image)) if is_form else image
            content_type = "multipart/form-data; boundary=b" if is_form else "image/jpeg"
            assert await read(body, content_type, [256 * 1024]) == image
    assert [thread is threading.main_thread() for thread in threads] == [False, True]


async def test_one_thread_joins_large_bodies(store: Path, loader: Loader) -> None:
    """Not by those that list the store, which may hang; and one at a time, as each takes twice its memory."""
    threads = set()
    finish = Pieces.finish

    def watched(pieces: Pieces) -> Upload:
        threads.add(threading.current_thread().name)
        return finish(pieces)

    async with running(store, loader) as service:
        with patch.object(Pieces, "finish", watched):
            sent = [service.client.post("/predict", content=pieces_of(6)) for _ in range(4)]
            assert {response.status_code for response in await asyncio.gather(*sent)} == {415}
    assert threads == {"join_0"}


async def test_a_large_body_pauses_while_others_are_computed(
    store: Path, loader: Loader, monkeypatch: pytest.MonkeyPatch
) -> None:
    turn, pauses = asyncio.sleep, []

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)
        await turn(0)

    async with running(store, loader) as service:
        loader.engines[1].hold()
        other = asyncio.create_task(service.client.post("/predict", content=PHOTO))
        while not loader.engines[1].batches:
            await asyncio.sleep(0.01)
        with monkeypatch.context() as patched:
            patched.setattr("service.api.upload.asyncio.sleep", sleep)
            response = await service.client.post("/predict", content=pieces_of(6))
        assert response.status_code == 415
        assert pauses.count(upload.PAUSE_S) == 2
        loader.engines[1].release()
        assert (await other).status_code == 200


async def pieces_of(num_mebibytes: int) -> AsyncIterator[bytes]:
    """A body that is no image."""
    for _ in range(num_mebibytes):
        yield bytes(1024 * 1024)


@pytest.mark.parametrize(
    "headers",
    [
        {"Content-Type": "image/jpeg"},
        {"Content-Type": "IMAGE/PNG; charset=binary"},  # what it is is decided by content
        {"Content-Type": "application/octet-stream"},
        {"Content-Type": "binary/octet-stream"},  # what object storage calls a file of unknown kind
        {"Content-Type": "application/x-www-form-urlencoded"},  # what curl calls the bytes of --data-binary
        {"Content-Type": "Application/X-WWW-Form-URLEncoded; charset=utf-8"},
        {},
    ],
)
async def test_the_whole_body_may_be_the_image(service: Running, headers: dict[str, str]) -> None:
    response = await service.client.post("/predict", content=PHOTO, headers=headers)
    assert response.status_code == 200, response.text


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF"])
async def test_no_image_is_taken_for_a_form(service: Running, image_format: str) -> None:
    image = encode(draw_photograph(0, seed=1, size=(40, 30)), image_format)
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    assert (await service.client.post("/predict", content=image, headers=headers)).status_code == 200


@pytest.mark.parametrize(("num_bytes", "status"), [(100_000, 200), (100_001, 413)])
@pytest.mark.parametrize("is_form", [True, False])
async def test_an_image_of_exactly_max_image_bytes_is_taken(
    service: Running, num_bytes: int, status: int, is_form: bool
) -> None:
    photo = PHOTO + bytes(num_bytes - len(PHOTO))  # decoders pass over what follows the image
    sent: dict[str, Any] = {"files": {"file": photo}} if is_form else {"content": photo}
    assert (await service.client.post("/predict", **sent)).status_code == status


@pytest.mark.parametrize("encoding", ["gzip", "identity", "zstd", "br", "", "invented"])
async def test_every_content_encoding_is_refused(service: Running, encoding: str) -> None:
    response = await service.client.post("/predict", content=PHOTO, headers={"Content-Encoding": encoding})
    assert (response.status_code, response.json()["type"]) == (415, "/problems/unsupported-encoding")


@pytest.mark.parametrize("form", [b"a=b", b"file=" + b"%FF%D8" * 1000, b"x", b"x" * 512 + b"\n"])
async def test_a_url_encoded_form_is_no_image(service: Running, form: bytes) -> None:
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    response = await service.client.post("/predict", content=form, headers=headers)
    assert (response.status_code, response.json()["type"]) == (415, "/problems/unsupported-media-type")


async def test_the_image_may_be_a_form_field_among_others(service: Running) -> None:
    response = await service.client.post(
        "/predict", data={"note": "from the garden"}, files={"file": ("tulip.jpg", PHOTO)}
    )
    assert response.status_code == 200, response.text


@pytest.mark.parametrize("is_first", [True, False])
@pytest.mark.parametrize("params", [{}, {"top_k": 2}])
async def test_top_k_may_be_a_field_of_the_form(service: Running, is_first: bool, params: dict[str, int]) -> None:
    parts: list[tuple[str, tuple[None, str] | tuple[str, bytes]]] = [("top_k", (None, "2")), ("file", ("a", PHOTO))]
    files = parts if is_first else parts[::-1]
    response = await service.client.post("/predict", files=files, params=params)
    assert response.status_code == 200, response.text
    assert len(response.json()["predictions"]) == 2


@pytest.mark.parametrize("size", [1, 3, 1000])
async def test_a_field_is_whole_in_chunks_of_any_size(size: int) -> None:
    body = multipart(('name="top_k"', b"12345"), ('name="file"', b"image"), ('name="top_k"', b"9" * 5000))
    upload = await read_all(body, "multipart/form-data; boundary=b", [size])
    assert upload == Upload(b"image", ("12345", "9" * 64))


async def test_a_path_may_end_with_a_slash(service: Running) -> None:
    assert (await service.client.post("/predict/", files={"file": PHOTO}, params={"top_k": 2})).status_code == 200
    assert (await service.client.head("/readyz/")).status_code == 200
    metrics = (await service.client.get("/metrics/")).text
    assert 'flowers_requests_total{method="POST",route="/predict",status="200"}' in metrics


@settings(deadline=None, max_examples=100)
@given(
    image=st.binary(min_size=1, max_size=300) | st.just(b"\r\n--b\r\n--b-\r\n--"),
    sizes=st.lists(st.integers(1, 50), min_size=1, max_size=5),
    before=st.booleans(),
)
def test_a_form_gives_the_same_bytes_in_any_chunks(image: bytes, sizes: list[int], before: bool) -> None:
    if b"\r\n--b" in image:
        image = image.replace(b"\r\n--b", b"\r\n--c")  # a real client chooses a boundary that is not in the image
    parts = [('name="file"; filename="a.jpg"', image)]
    if before:
        parts.insert(0, ('name="note"', b"x" * 99))
    body = multipart(*parts)
    assert asyncio.run(read(body, "multipart/form-data; boundary=b", sizes)) == image
    assert asyncio.run(read(body, 'multipart/form-data; boundary="b"', [len(body)])) == image


@pytest.mark.parametrize("sizes", [[1, 4095, 4096, 1], [50_000, 3], [4097, 100, 200, 300_000]])
@pytest.mark.parametrize("is_form", [True, False])
async def test_small_and_large_pieces_keep_their_order(sizes: list[int], is_form: bool) -> None:
    image = bytes(range(256)) * 2000
    body = multipart(('name="file"', image)) if is_form else image
    assert await read(body, "multipart/form-data; boundary=b" if is_form else "image/jpeg", sizes) == image


@pytest.mark.parametrize("is_form", [True, False])
async def test_tiny_pieces_take_no_more_memory_than_their_bytes(is_form: bool) -> None:
    """Each as an object of its own would take up to ninety times as much."""
    image = bytes(100_000)
    body = multipart(('name="file"', image)) if is_form else image
    tracemalloc.start()
    try:
        assert await read(body, "multipart/form-data; boundary=b" if is_form else "image/jpeg", [1]) == image
        assert tracemalloc.get_traced_memory()[1] < 3 * len(image)
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("end", [b"--b--", b"--b--\r\n", b"--b--\r\nepilogue"])
async def test_every_way_to_end_a_form_is_taken(end: bytes) -> None:
    body = multipart(('name="file"', PHOTO), end=end)
    assert await read(body, "multipart/form-data; boundary=b", [1000]) == PHOTO


@pytest.mark.parametrize(
    "before",
    [b"", b"\r\n", b"A message in several parts.\r\n", b"one\r\ntwo--b\r\n--\r\n\r\n", b"\r\n--bx\r\n", b"--b:\r\n"],
)
@pytest.mark.parametrize("padding", [b"", b" \t "])
async def test_text_before_and_blanks_behind_boundaries_are_passed_over(before: bytes, padding: bytes) -> None:
    """RFC 2046, section 5.1.1."""
    form = multipart(('name="note"', b"x"), ('name="file"', PHOTO), end=b"--b--" + padding + b"\r\nafterword")
    body = before + form.replace(b"--b\r\n", b"--b" + padding + b"\r\n")
    for sizes in ([1], [1000], [len(body)]):
        assert await read(body, "multipart/form-data; boundary=b", sizes) == PHOTO


@settings(deadline=None, max_examples=100)
@given(st.binary(max_size=200), st.binary(max_size=60))
def test_any_broken_form_is_answered_with_a_problem(noise: bytes, header: bytes) -> None:
    for body in (
        noise,
        b"--b\r\n" + header + b"\r\n\r\n" + noise,
        multipart(('name="file"', noise))[:-9] + noise,
    ):
        with suppress(FlowersError):
            asyncio.run(read(body, "multipart/form-data; boundary=b", [7]))


@pytest.mark.parametrize(
    "form",
    [
        multipart(*[('name="x"', b"")] * 10_000),
        multipart((f'name="file"; {"x" * 10_000}=1', PHOTO)),
        b"--b\r\n" + b"".join(b"X-%d: 1\r\n" % number for number in range(1000)) + b"\r\n",
        b"--b\r\n" + b"x" * 90_000,
    ],
    ids=["parts", "header", "headers", "header name"],
)
async def test_forms_made_to_waste_time_are_malformed(form: bytes) -> None:
    with pytest.raises(RequestError, match=r"form|multipart"):
        await read(form, "multipart/form-data; boundary=b", [1000])


async def test_a_long_media_type_is_repeated_in_few_letters() -> None:
    with pytest.raises(UnsupportedMediaType) as caught:
        await read(b"x", "text/" + "x" * 5000, [1])
    assert len(str(caught.value)) < 400


async def test_with_a_wrong_field_top_k_nothing_is_computed(service: Running, loader: Loader) -> None:
    response = await service.client.post("/predict", data={"top_k": "6"}, files={"file": PHOTO})
    assert response.status_code == 422
    assert loader.engines[1].batches == []
