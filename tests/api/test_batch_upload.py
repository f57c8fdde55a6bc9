"""Images of a batch as they arrive: their bytes, their order, and the share that makes the reader wait."""

import asyncio
import tracemalloc
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.requests import Request
from support.tickets import open_ticket

from service.api.batch_upload import BatchForm, BatchLimits, BatchUpload, Part
from service.api.upload import UploadLimits
from service.errors import (
    BodyTooSlow,
    DeadlineExceeded,
    FlowersError,
    ImageBytesTooLarge,
    MalformedRequest,
    MissingImage,
    QueueFull,
    TooManyImages,
)
from service.inference.admission import Admission

pytestmark = pytest.mark.anyio

PART = b'--b\r\nContent-Disposition: form-data; name="%b"\r\n\r\n%b\r\n'
END = b"--b--\r\n"
LIMITS = BatchLimits(UploadLimits(max_image_bytes=100, body_timeout_s=30), max_images=3, max_bytes=250)
HURRIED = BatchLimits(UploadLimits(max_image_bytes=100, body_timeout_s=0.1), max_images=3, max_bytes=250)


def form_of(*images: bytes) -> bytes:
    return b"".join(PART % (b"file", image) for image in images) + END


def parse(body: bytes, size: int = 7) -> list[Part]:
    async def run() -> list[Part]:
        with open_ticket() as ticket:
            form, parts = BatchForm(b"b", LIMITS, ticket), list[Part]()
            for at in range(0, len(body), size):
                form.write(body[at : at + size])
                parts += form.take()
            form.finish()
            assert ticket.num_bytes == sum(part.num_bytes for part in parts)
            return parts

    return asyncio.run(run())


@settings(deadline=None, max_examples=50)
@given(st.lists(st.binary(min_size=1, max_size=80), min_size=1, max_size=3), st.integers(1, 50))
def test_images_are_whole_in_chunks_of_any_size(images: list[bytes], size: int) -> None:
    images = [image.replace(b"--", b"xx") for image in images]
    assert [part.pieces.finish().image for part in parse(form_of(*images), size)] == images


def test_an_empty_and_a_large_image_spoil_their_places() -> None:
    empty, large, small = parse(form_of(b"", b"x" * 101, b"y" * 100))
    assert isinstance(empty.error, MissingImage)
    assert isinstance(large.error, ImageBytesTooLarge)
    assert (large.num_bytes, large.pieces.num_bytes) == (0, 0)
    assert (small.error, small.num_bytes) == (None, 100)


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (form_of(b"x", b"x", b"x", b"x"), TooManyImages),
        (form_of(b"x" * 90, b"x" * 90, b"x" * 90), ImageBytesTooLarge),
        (form_of(b"x" * 300), ImageBytesTooLarge),
        (PART % (b"note", b"x") + END, MissingImage),
        (PART % (b"note", b"x") * 40 + END, MalformedRequest),
        (form_of(b"x")[:-5], MalformedRequest),
    ],
    ids=["images", "bytes", "bytes of a spoilt place", "no image", "parts", "cut short"],
)
def test_a_wrong_form_is_refused(body: bytes, error: type[Exception]) -> None:
    with pytest.raises(error):
        parse(body)


async def test_bytes_without_room_spoil_their_place() -> None:
    admission = Admission(max_queue_size=1, max_queue_bytes=100, min_queue_size=lambda: 1)
    with admission.request() as ticket:
        ticket.add_bytes(50)
        form = BatchForm(b"b", LIMITS, ticket)
        form.write(form_of(b"x" * 51, b"y" * 50))
        full, fitting = form.take()
        assert isinstance(full.error, QueueFull)
        assert full.error.__traceback__ is None
        assert fitting.error is None
        assert ticket.num_bytes == 100


class Client:
    """Sends chunks. It waits some seconds before each."""

    def __init__(self, chunks: Sequence[bytes], waits_s: Sequence[float] = ()) -> None:
        self.num_read = 0
        self._chunks = chunks
        self._waits_s = [*waits_s, *[0.0] * len(chunks)]
        size = sum(map(len, chunks))
        headers = [(b"content-type", b"multipart/form-data; boundary=b"), (b"content-length", b"%d" % size)]
        self.request = Request({"type": "http", "headers": headers, "state": {}}, self._receive)

    async def _receive(self) -> dict[str, Any]:
        await asyncio.sleep(self._waits_s[self.num_read])
        chunk = self._chunks[self.num_read]
        self.num_read += 1
        return {"type": "http.request", "body": chunk, "more_body": self.num_read < len(self._chunks)}


async def read(client: Client, limits: BatchLimits = LIMITS, gives_up_at: float | None = None) -> AsyncIterator[Part]:
    with open_ticket() as ticket:
        upload = BatchUpload(client.request, ticket, limits, gives_up_at)
        async for part in upload.read(ticket.share()):
            yield part


def chunks_of(*images: bytes) -> list[bytes]:
    """A chunk for each image, which ends with the delimiter behind it."""
    delimiter = b"--b\r\n"
    _, first, *others, last = form_of(*images).split(delimiter)
    return [delimiter + first + delimiter, *[other + delimiter for other in others], last]


async def test_no_more_is_read_while_the_share_is_full() -> None:
    client = Client(chunks_of(b"one", b"two", b"three"))
    admission = Admission(max_queue_size=2, max_queue_bytes=10**6, min_queue_size=lambda: 1)
    may_end = asyncio.Event()
    images: list[bytes] = []

    async def take() -> None:
        with admission.request() as ticket:
            share = ticket.share()
            async for part in BatchUpload(client.request, ticket, LIMITS, None).read(share):
                share.hold(part.num_bytes, asyncio.create_task(may_end.wait()))
                images.append(part.pieces.finish().image)

    taking = asyncio.create_task(take())
    for _ in range(50):
        await asyncio.sleep(0)
    assert (images, client.num_read) == ([b"one"], 2)  # the second is here, and waits for its place
    may_end.set()
    await taking
    assert (images, client.num_read) == ([b"one", b"two", b"three"], 3)


@pytest.mark.parametrize(("late_s", "error"), [(None, BodyTooSlow), (-10, DeadlineExceeded)])
async def test_a_body_that_stops_is_refused(late_s: float | None, error: type[FlowersError]) -> None:
    gives_up_at = None if late_s is None else asyncio.get_running_loop().time() + late_s
    with pytest.raises(error):
        async for _ in read(Client(chunks_of(b"one", b"two"), [0, 60]), HURRIED, gives_up_at):
            pass


async def test_the_clock_of_the_body_adds_up_waits() -> None:
    with pytest.raises(BodyTooSlow):
        async for _ in read(Client(chunks_of(b"one", b"two", b"three"), [0.06, 0.06, 0.06]), HURRIED):
            pass


async def test_slow_scoring_takes_no_time_of_the_body() -> None:
    images = []
    async for part in read(Client(chunks_of(b"one", b"two", b"three")), HURRIED):
        images.append(part.pieces.finish().image)
        await asyncio.sleep(0.06)
    assert images == [b"one", b"two", b"three"]


async def test_an_image_that_was_taken_leaves_no_bytes() -> None:
    image = bytes(1_000_000)
    chunks = chunks_of(*[image] * 10)
    tracemalloc.start()
    try:
        async for part in read(Client(chunks), BatchLimits(UploadLimits(2_000_000, 30), 10, 10**9)):
            part.pieces.finish()
        assert tracemalloc.get_traced_memory()[1] < 5 * len(image)
    finally:
        tracemalloc.stop()
