"""Random damage: an answer or one of our errors, in bounded time and memory.

A few seconds for each part among the other tests, and a minute by itself in `make fuzz`. A failure names its seed.
"""

import asyncio
import gc
import logging
import os
import random
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest
from starlette.requests import Request
from support.damage import FILES, LIMITS, damaged
from support.memory import cpu_seconds, growth_bytes, memory_bytes
from support.processes import children, is_gone
from support.tickets import open_ticket

from service.api.upload import UploadLimits, read_image
from service.errors import ImageError, RequestError
from service.imaging.decode import decode_image
from service.imaging.inspection import inspect
from service.imaging.limits import ResizeRule
from service.imaging.resize import resize
from service.inference.decode_process import Job
from service.inference.decoders import DecodeProcesses

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")

SECONDS = float(os.environ.get("FLOWERS_TEST_FUZZ_S", "2"))
RULE = ResizeRule()
LONGEST_S = 2.0  # of one input, on this thread's clock: a busy machine is not the decoder's fault
GROWTH_BYTES = 50 * 1024 * 1024  # by one input, and by all of them
MOST_BYTES_BESIDE = 150 * 1024 * 1024  # in the process for what no header bounds

JPEG = FILES[0]
FORMS = [
    b'--fuzz\r\nContent-Disposition: form-data; name="file"; filename="a.jpg"\r\n\r\n' + JPEG + b"\r\n--fuzz--\r\n",
    b'--fuzz\r\nContent-Disposition: form-data; name="note"\r\n\r\nred\r\n--fuzz\r\nContent-Type: image/jpeg\r\n'
    b'content-disposition: form-data; name=file; filename*=UTF-8\'\'a.jpg\r\n\r\n' + JPEG[:99] + b"\r\n--fuzz--",
]  # fmt: skip


def fuzz(files: list[bytes], check: Callable[[bytes, random.Random], None]) -> None:
    """Run `check` on damaged `files` until the time is up."""
    gc.collect()
    gc.freeze()  # Python collects in proportion to all that lives: what earlier tests left shall not let ours pile up
    until, seed = time.monotonic() + SECONDS, time.time_ns()
    warm_bytes = 0
    count = 0
    while time.monotonic() < until:
        count, seed = count + 1, seed + 1
        source = random.Random(seed)
        data = damaged(source.choice(files), files, source)
        began = time.thread_time()
        try:
            assert growth_bytes(lambda: check(data, source)) < GROWTH_BYTES  # noqa: B023 - called at once
            assert time.thread_time() - began < LONGEST_S
        except BaseException as error:
            error.add_note(f"seed {seed}: {data[:60]!r}... of {len(data)} bytes")
            raise
        if count == 200:
            warm_bytes = memory_bytes("VmRSS")
    gc.unfreeze()
    assert count > 200
    assert memory_bytes("VmRSS") - warm_bytes < GROWTH_BYTES
    grown_mb = (memory_bytes("VmRSS") - warm_bytes) / 2**20
    print(f"{count} inputs in {SECONDS:g} s, {grown_mb:.0f} MB more")


@pytest.mark.slow
def test_decoding_survives_any_damage(processes: DecodeProcesses) -> None:
    (decoder,) = children()

    def check(data: bytes, _: random.Random) -> None:
        began = cpu_seconds(decoder)
        with suppress(ImageError):
            inspection = inspect(data, LIMITS)
            if inspection.is_memory_bounded:
                decoded = decode_image(data, LIMITS)
                assert decoded.image.width * decoded.image.height <= inspection.num_pixels
                assert resize(decoded, RULE).shape == (RULE.image_size, RULE.image_size, 3)
            else:
                processes.decode(Job(data, inspection, RULE, time.monotonic() + 30))
        assert not is_gone(decoder), "it was brought down"
        assert cpu_seconds(decoder) - began < LONGEST_S

    fuzz(FILES, check)
    assert memory_bytes("VmHWM", decoder) < MOST_BYTES_BESIDE


@pytest.fixture
def processes() -> Iterator[DecodeProcesses]:
    processes = DecodeProcesses()
    processes.decode(Job(FILES[0], inspect(FILES[0], LIMITS), RULE, time.monotonic() + 60))  # it is there
    yield processes
    processes.close()


@pytest.mark.slow
def test_reading_a_form_survives_any_damage(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL, "python_multipart")  # as the service does, else pytest keeps every warning

    async def read(body: bytes, source: random.Random) -> bytes:
        position = 0

        async def receive() -> dict[str, Any]:
            nonlocal position
            size = source.choice((1, 7, 100, 65_536))
            chunk, position = body[position : position + size], position + size
            return {"type": "http.request", "body": chunk, "more_body": position < len(body)}

        content_type = source.choice((b"multipart/form-data; boundary=fuzz", b'multipart/form-data; boundary="fuzz"'))
        headers = [(b"content-type", content_type), (b"content-length", str(len(body)).encode())]
        request = Request({"type": "http", "headers": headers, "state": {}}, receive)
        with open_ticket() as ticket:
            return (await read_image(request, ticket, UploadLimits(LIMITS.max_image_bytes, body_timeout_s=30))).image

    def check(data: bytes, source: random.Random) -> None:
        with suppress(ImageError, RequestError):
            assert len(asyncio.run(read(data, source))) <= len(data)

    fuzz(FORMS, check)


def test_the_files_that_fuzzing_starts_from_are_good_ones() -> None:
    assert {decode_image(data, LIMITS).pixels.shape for data in FILES} == {(36, 48, 3), (48, 36, 3), (40, 40, 3)}
