"""The way in: what is taken, when it is refused, and how a refusal reaches the sender."""

import asyncio
import gc
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from drawing import draw_photograph, encode
from fakes import Loader
from hypothesis import given, settings
from hypothesis import strategies as st
from python_multipart.multipart import MultipartParser
from running import Running, running
from starlette.requests import Request

from service.api.upload import read_image
from service.errors import FlowersError, RequestError

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


async def read(body: bytes, content_type: str, sizes: list[int]) -> bytes:
    """`read_image` of a body that arrives in chunks of these sizes, over and over."""
    position, turn = 0, 0

    async def receive() -> dict[str, Any]:
        nonlocal position, turn
        size = sizes[turn % len(sizes)]
        chunk = body[position : position + size]
        position, turn = position + size, turn + 1
        return {"type": "http.request", "body": chunk, "more_body": position < len(body)}

    headers = [(b"content-type", content_type.encode()), (b"content-length", str(len(body)).encode())]
    request = Request({"type": "http", "headers": headers, "state": {}}, receive)
    return await read_image(request, max_image_bytes=1_000_000, body_timeout_s=30)


@pytest.mark.parametrize(
    "headers",
    [
        {"Content-Type": "image/jpeg"},
        {"Content-Type": "IMAGE/PNG; charset=binary"},  # what it is is decided by content
        {"Content-Type": "application/octet-stream"},
        {},
    ],
)
async def test_the_whole_body_may_be_the_image(service: Running, headers: dict[str, str]) -> None:
    response = await service.client.post("/predict", content=PHOTO, headers=headers)
    assert response.status_code == 200, response.text


async def test_the_image_may_be_a_form_field_among_others(service: Running) -> None:
    response = await service.client.post(
        "/predict", data={"note": "from the garden"}, files={"file": ("tulip.jpg", PHOTO)}
    )
    assert response.status_code == 200, response.text


@settings(deadline=None, max_examples=100)
@given(
    image=st.binary(min_size=1, max_size=300) | st.just(b"\r\n--b\r\n--b-\r\n--"),
    sizes=st.lists(st.integers(1, 50), min_size=1, max_size=5),
    before=st.booleans(),
)
def test_a_form_gives_the_same_bytes_however_it_is_cut_into_chunks(
    image: bytes, sizes: list[int], before: bool
) -> None:
    if b"\r\n--b" in image:
        image = image.replace(b"\r\n--b", b"\r\n--c")  # a real client chooses a boundary that is not in the image
    parts = [('name="file"; filename="a.jpg"', image)]
    if before:
        parts.insert(0, ('name="note"', b"x" * 99))
    body = multipart(*parts)
    assert asyncio.run(read(body, "multipart/form-data; boundary=b", sizes)) == image
    assert asyncio.run(read(body, 'multipart/form-data; boundary="b"', [len(body)])) == image


@pytest.mark.parametrize("end", [b"--b--", b"--b--\r\n", b"--b--\r\nepilogue"])
async def test_every_way_to_end_a_form_is_taken(end: bytes) -> None:
    body = multipart(('name="file"', PHOTO), end=end)
    assert await read(body, "multipart/form-data; boundary=b", [1000]) == PHOTO


@settings(deadline=None, max_examples=100)
@given(st.binary(max_size=200), st.binary(max_size=60))
def test_whatever_is_sent_as_a_form_is_answered_with_a_problem(noise: bytes, header: bytes) -> None:
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
