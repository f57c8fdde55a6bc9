"""Random damage: an answer or one of our errors, in bounded time and memory.

A few seconds for each part among the other tests, and a minute by itself in `make fuzz`. A failure names its seed.
"""

import asyncio
import gc
import os
import random
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest
from PIL import ExifTags, Image, ImageCms
from starlette.requests import Request
from support.drawing import draw_photograph, encode
from support.handmade import png_chunk, run_length_bmp
from support.memory import cpu_seconds, growth_bytes, memory_bytes
from support.tickets import open_ticket

from service.api.upload import UploadLimits, read_image
from service.errors import ImageError, RequestError
from service.imaging.decode import Undecoded, decode_image
from service.imaging.pixels import ImageLimits, ResizeRule
from service.imaging.resize import resize
from service.inference.decode_process import DecodeProcesses

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")

SECONDS = float(os.environ.get("FLOWERS_TEST_FUZZ_S", "2"))
LIMITS = ImageLimits(max_image_bytes=200_000, max_image_pixels=250_000)
RULE = ResizeRule()
LONGEST_S = 2.0  # of one input, on this thread's clock: a busy machine is not the decoder's fault
GROWTH_BYTES = 50 * 1024 * 1024  # by one input, and by all of them
MOST_BYTES_BESIDE = 150 * 1024 * 1024  # in the process for what no header bounds

PICTURE = draw_photograph(1, 1, (48, 36))
FRAMES = {"save_all": True, "append_images": [draw_photograph(2, 2, (48, 36))]}
EXIF = Image.Exif()
EXIF[0x0112] = 6
EXIF.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.ExposureTime] = 0.01
PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
FILES = [
    encode(PICTURE), encode(PICTURE, progressive=True), encode(PICTURE.convert("CMYK")), encode(PICTURE, exif=EXIF),
    encode(PICTURE.convert("L"), "PNG"), encode(PICTURE.convert("P"), "PNG"), encode(PICTURE.convert("RGBA"), "PNG"),
    encode(PICTURE, "PNG", **FRAMES), encode(PICTURE, "GIF", **FRAMES), encode(PICTURE, "WEBP"),
    encode(PICTURE.convert("RGBA"), "WEBP", lossless=True, **FRAMES), encode(PICTURE, "BMP"), run_length_bmp(40, 7),
    encode(PICTURE, "TIFF"), encode(PICTURE, "TIFF", compression="tiff_lzw"),
    encode(PICTURE, "TIFF", compression="jpeg"), encode(PICTURE, "TIFF", exif=EXIF), encode(PICTURE, "AVIF"),
    encode(PICTURE, "AVIF", exif=EXIF), encode(PICTURE, "PNG", icc_profile=PROFILE),
    encode(PICTURE, icc_profile=PROFILE),
]  # fmt: skip
JPEG = FILES[0]
FORMS = [
    b'--fuzz\r\nContent-Disposition: form-data; name="file"; filename="a.jpg"\r\n\r\n' + JPEG + b"\r\n--fuzz--\r\n",
    b'--fuzz\r\nContent-Disposition: form-data; name="note"\r\n\r\nred\r\n--fuzz\r\nContent-Type: image/jpeg\r\n'
    b'content-disposition: form-data; name=file; filename*=UTF-8\'\'a.jpg\r\n\r\n' + JPEG[:99] + b"\r\n--fuzz--",
]  # fmt: skip
TOKENS = [b"\0", b"\xff", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", bytes(8), b"\r\n", b"\n", b"--fuzz",
          b"\r\n--fuzz--", b"Content-Disposition: form-data;", b'name="file"', b'"', b";", b":", b"\xff\xda",
          png_chunk(b"tEXt", b"a\0b"), JPEG[:30], b"x" * 5000]  # fmt: skip


def damaged(data: bytes, others: list[bytes], source: random.Random) -> bytes:
    """Flipped, overwritten, deleted, repeated, spliced or cut, up to eight times."""
    for _ in range(source.randint(1, 8)):
        at = source.randrange(len(data) + 1)
        if source.random() < 0.3:
            at = min(at, source.randrange(64))  # headers decide the most
        length = source.choice((1, 2, 4, 16, 256))
        piece = data[at : at + length]
        match source.randrange(6):
            case 0:
                data = data[:at] + bytes(byte ^ 1 << source.randrange(8) for byte in piece[:1]) + data[at + 1 :]
            case 1:
                token = source.choice(TOKENS)
                data = data[:at] + token + data[at + source.choice((0, len(token))) :]
            case 2:
                data = data[:at] + data[at + length :]
            case 3:
                data = data[:at] + piece * source.choice((2, 10, 100)) + data[at:]
            case 4:
                other = source.choice(others)
                data = data[:at] + other[source.randrange(len(other)) :]
            case 5:
                data = data[:at] + source.randbytes(length) + data[at + length :]
    return data[: LIMITS.max_image_bytes] or b"\0"


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
    print(f"{count} inputs in {SECONDS:g} s")


@pytest.mark.slow
def test_decoding_survives_any_damage(processes: DecodeProcesses) -> None:
    (decoder,) = processes._running

    def check(data: bytes, _: random.Random) -> None:
        began = cpu_seconds(decoder.pid)
        with suppress(ImageError):
            try:
                decoded = decode_image(data, LIMITS, leave_unbounded)
            except Undecoded:
                processes.decode_square(data, RULE, time.monotonic() + 30)
            else:
                assert decoded.image.width * decoded.image.height <= LIMITS.max_image_pixels
                assert resize(decoded, RULE).shape == (RULE.image_size, RULE.image_size, 3)
        assert decoder.poll() is None, "it was brought down"
        assert cpu_seconds(decoder.pid) - began < LONGEST_S

    fuzz(FILES, check)
    assert memory_bytes("VmHWM", decoder.pid) < MOST_BYTES_BESIDE


def leave_unbounded(_: int, num_decoded: int | None) -> None:
    """What may take any memory is for a process, as in the service."""
    if num_decoded is None:
        raise Undecoded


@pytest.fixture
def processes() -> Iterator[DecodeProcesses]:
    processes = DecodeProcesses(LIMITS)
    processes.decode_square(FILES[0], RULE, time.monotonic() + 60)  # it is there
    yield processes
    processes.close()


@pytest.mark.slow
def test_reading_a_form_survives_any_damage() -> None:
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
