"""Request -> the bytes of one image and its parameters. Each step is bounded. There is no temporary file."""

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor
from contextlib import aclosing
from dataclasses import dataclass

from python_multipart.multipart import parse_options_header
from starlette.requests import Request

from service.api.bodies import URL_ENCODED, Form, Raw, Upload, too_large, unsupported
from service.errors import BodyTooSlow, MissingImage, UnsupportedEncoding
from service.inference.admission import Ticket

_BINARY = (  # a file of unknown kind
    *("application/octet-stream", "application/x-octet-stream", "application/binary", "application/x-binary"),
    *("binary/octet-stream", "image", "*/*", ""),
)
_MAX_MULTIPART_OVERHEAD_BYTES = 64 * 1024  # boundaries, part headers and other form fields, together
# Above the size of a photograph, reading pauses after each piece (up to 256 KiB) while the service is busy. A thread
# joins the pieces. Otherwise two clients with large bodies on a fast network keep the event loop busy, for which the
# lanes step back (`benchmarks/reliability`, neighbours).
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


async def read_image(request: Request, ticket: Ticket, limits: UploadLimits) -> Upload:
    """Read the one image that the request carries, as multipart field `file` or as its whole body.

    Args:
        request: Its body has not been read.
        ticket: Counts each piece before it is kept.
        limits: Sizes and times.

    Raises:
        UnsupportedEncoding, UnsupportedMediaType: The headers say so. The body is not read.
        MissingImage, ImageBytesTooLarge: The headers say so, or the body shows it.
        QueueFull: The ticket takes no more bytes.
        BodyTooSlow: The body did not arrive in time.
        MalformedRequest: The multipart body cannot be parsed.
        TooManyImages: The form has more than one field named `file`.
    """
    if "content-encoding" in request.headers:
        raise UnsupportedEncoding("The request has a Content-Encoding: send the image file as it is, without one.")
    media_type, options = parse_options_header(request.headers.get("content-type"))
    kind = media_type.decode("latin-1")
    is_multipart = kind == "multipart/form-data"
    max_bytes = limits.max_image_bytes + (_MAX_MULTIPART_OVERHEAD_BYTES if is_multipart else 0)
    announced = request.headers.get("content-length", "")
    if announced == "0" or (not announced and "transfer-encoding" not in request.headers):
        raise _no_body()
    if announced.isdecimal() and int(announced[:19]) > max_bytes:
        raise too_large(limits.max_image_bytes)
    sink: Form | Raw
    if is_multipart:
        sink = Form(options.get(b"boundary", b""), limits.max_image_bytes)
    elif kind in _BINARY or kind.startswith("image/") or kind == URL_ENCODED:
        sink = Raw(is_perhaps_a_form=kind == URL_ENCODED)
    else:
        raise unsupported(kind)
    num_bytes = 0
    try:
        async with asyncio.timeout(limits.body_timeout_s), aclosing(request.stream()) as chunks:
            async for chunk in chunks:
                num_bytes += len(chunk)
                if num_bytes > max_bytes:
                    raise too_large(limits.max_image_bytes)
                ticket.add_bytes(len(chunk))
                sink.write(chunk)
                if chunk and num_bytes > LARGE_BYTES and limits.is_busy():
                    await asyncio.sleep(PAUSE_S)
        if not num_bytes:
            raise _no_body()
        if num_bytes > LARGE_BYTES:
            return await asyncio.get_running_loop().run_in_executor(limits.joiner, sink.finish)
        return sink.finish()
    except TimeoutError:
        raise BodyTooSlow(
            f"The body did not arrive within {limits.body_timeout_s:g} seconds: send a smaller file, or use a "
            "faster connection."
        ) from None
    finally:
        sink.close()


def _no_body() -> MissingImage:
    return MissingImage("The request has no body: send the photograph as form field 'file', or as the whole body.")
