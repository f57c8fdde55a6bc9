"""Request -> the bytes of one image and its parameters."""

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial

from python_multipart.multipart import parse_options_header
from starlette.requests import Request

from service import errors
from service.api.multipart import Form, Pieces, Upload, image_too_large
from service.inference.admission import Ticket

FORM = "multipart/form-data"
_URL_ENCODED = "application/x-www-form-urlencoded"  # of a web form, and of anything that curl sends by --data-binary
_BINARY = (  # a file of unknown kind
    *("application/octet-stream", "application/x-octet-stream", "application/binary", "application/x-binary"),
    *("binary/octet-stream", "image", "application/x-image", "*/*", "", _URL_ENCODED),
)
_NUM_JUDGED_BYTES = 512  # an image has bytes among them that no URL-encoded form has
MAX_MULTIPART_OVERHEAD_BYTES = 64 * 1024
"""Size of boundaries, part headers and other form fields, together."""

# Above the size of a photograph, reading pauses after each piece (up to 256 KiB) while the service is busy. A thread
# joins the pieces. Otherwise two clients with large bodies on a fast network keep the event loop busy, for which the
# lane steps back (`benchmarks/reliability`, neighbours).
LARGE_BYTES = 4 * 1024 * 1024
PAUSE_S = 0.002


@dataclass(frozen=True)
class UploadLimits:
    """Limits of every upload.

    Attributes:
        max_image_bytes: Longest image file.
        body_timeout_s: Time for a body to arrive, in seconds.
        is_busy: Returns whether images are computed now, or were a moment ago. Large bodies are read slower then.
        joiner: Joins the pieces of a large body beside the event loop. None means a thread of the event loop.
    """

    max_image_bytes: int
    body_timeout_s: float
    is_busy: Callable[[], bool] = lambda: False
    joiner: Executor | None = None

    async def join(self, image: Form | Pieces, num_bytes: int) -> Upload:
        """Join the pieces of an image of `num_bytes`. Errors are those of `Form.finish`."""
        if num_bytes > LARGE_BYTES:
            return await asyncio.get_running_loop().run_in_executor(self.joiner, image.finish)
        return image.finish()

    async def pause(self, num_bytes: int) -> None:
        """Pause if `num_bytes` of one image are here, which is large, and the service is busy."""
        if num_bytes > LARGE_BYTES and self.is_busy():
            await asyncio.sleep(PAUSE_S)

    def too_slow(self) -> errors.BodyTooSlow:
        """Return the refusal of a body that has taken too long."""
        return errors.BodyTooSlow(
            f"The body did not arrive within {self.body_timeout_s:g} seconds. Send a smaller file, or use a "
            "faster connection."
        )


async def read_image(request: Request, ticket: Ticket, limits: UploadLimits) -> Upload:
    """Read the one image that the request carries, as multipart field `file` or as its whole body.

    The ticket counts each piece before it is kept.

    Raises:
        UnsupportedEncoding, UnsupportedMediaType: The headers say so. The body is not read.
        MissingImage, ImageBytesTooLarge: The headers say so, or the body shows it.
        QueueFull: The ticket takes no more bytes.
        BodyTooSlow: The body did not arrive in time.
        MalformedRequest: The multipart body cannot be parsed.
        TooManyImages: The form has more than one field named `file`.
    """
    kind, boundary = read_media_type(request)
    is_form = kind == FORM
    max_bytes = limits.max_image_bytes + (MAX_MULTIPART_OVERHEAD_BYTES if is_form else 0)
    too_large = partial(image_too_large, limits.max_image_bytes)
    check_length(request, max_bytes, too_large)
    if not is_form and kind not in _BINARY and not kind.startswith("image/"):
        raise _unsupported(kind)
    sink = Form(boundary, limits.max_image_bytes) if is_form else Pieces()
    try:
        async with asyncio.timeout(limits.body_timeout_s):
            num_bytes = await read_into(sink, request, ticket, limits, max_bytes, too_large)
            upload = await limits.join(sink, num_bytes)
    except TimeoutError:
        raise limits.too_slow() from None
    if kind == _URL_ENCODED and all(0x20 < byte < 0x7F for byte in upload.image[:_NUM_JUDGED_BYTES]):
        raise _unsupported(kind)  # printable ASCII, as no image is
    return upload


async def read_into(
    sink: Form | Pieces,
    request: Request,
    ticket: Ticket,
    limits: UploadLimits,
    max_bytes: int,
    too_large: Callable[[], errors.ImageBytesTooLarge],
) -> int:
    """Write a body into `sink` piece by piece, and return its size in bytes. The ticket counts each piece before.

    Raises `MissingImage` for an empty body, what `too_large` makes for one above `max_bytes`, and `QueueFull`.
    """
    num_bytes = 0
    async with aclosing(request.stream()) as chunks:
        async for chunk in chunks:
            num_bytes += len(chunk)
            if num_bytes > max_bytes:
                raise too_large()
            ticket.add_bytes(len(chunk))
            sink.write(chunk)
            if chunk:
                await limits.pause(num_bytes)
    if not num_bytes:
        raise _no_body()
    return num_bytes


def read_media_type(request: Request) -> tuple[str, bytes]:
    """Return the media type in lower case and the boundary, each empty where there is none.

    Raises `UnsupportedEncoding` where the body has an encoding.
    """
    if "content-encoding" in request.headers:
        raise errors.UnsupportedEncoding("The request has a Content-Encoding. Send the image file without one.")
    media_type, options = parse_options_header(request.headers.get("content-type"))
    return media_type.decode("latin-1"), options.get(b"boundary", b"")


def check_length(request: Request, max_bytes: int, too_large: Callable[[], errors.ImageBytesTooLarge]) -> None:
    """Refuse a request without a body, or whose head announces more than `max_bytes`.

    Raises `MissingImage`, or what `too_large` makes.
    """
    announced = request.headers.get("content-length", "")
    if announced == "0" or (not announced and "transfer-encoding" not in request.headers):
        raise _no_body()
    if announced.isdecimal() and int(announced[:19]) > max_bytes:
        raise too_large()


def _no_body() -> errors.MissingImage:
    return errors.MissingImage("The request has no body. Send the image as form field 'file', or as the whole body.")


def _unsupported(kind: str) -> errors.UnsupportedMediaType:
    return errors.UnsupportedMediaType(
        f"The body is {kind[:80]!r}. Send a form with the image in field 'file' (curl -F file=@photo.jpg), or the "
        "file itself with Content-Type image/jpeg, image/png, ... or application/octet-stream."
    )
