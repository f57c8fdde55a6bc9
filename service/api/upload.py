"""Request -> the bytes of one image and its parameters. Each step is bounded. There is no temporary file."""

import asyncio
import io
import re
from collections.abc import Callable
from concurrent.futures import Executor
from contextlib import aclosing
from dataclasses import dataclass, replace

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import Request

from service import errors
from service.api.parameters import TOP_K
from service.inference.admission import Ticket

FIELD = "file"
_URL_ENCODED = "application/x-www-form-urlencoded"  # of a web form, and of anything that curl sends by --data-binary
_BINARY = (  # a file of unknown kind
    *("application/octet-stream", "application/x-octet-stream", "application/binary", "application/x-binary"),
    *("binary/octet-stream", "image", "*/*", "", _URL_ENCODED),
)
_NUM_JUDGED_BYTES = 512  # an image has bytes among them that no URL-encoded form has
_MAX_MULTIPART_OVERHEAD_BYTES = 64 * 1024  # boundaries, part headers and other form fields, together
_MAX_PARAMETER_BYTES = 64
_MAX_PARTS = 32
_SMALL_PIECE_BYTES = 4096  # as an object of its own it would take up to ninety times its bytes
_MAX_DELIMITER_BYTES = 1024  # a boundary has up to 256, and nearly as many blanks may follow it
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


@dataclass(frozen=True)
class Upload:
    """One image file as it was sent, and the values of the form's fields `top_k`."""

    image: bytes
    top_k: tuple[str, ...] = ()


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
    if "content-encoding" in request.headers:
        raise errors.UnsupportedEncoding("The request has a Content-Encoding. Send the image file without one.")
    media_type, options = parse_options_header(request.headers.get("content-type"))
    kind = media_type.decode("latin-1")
    is_form = kind == "multipart/form-data"
    max_bytes = limits.max_image_bytes + (_MAX_MULTIPART_OVERHEAD_BYTES if is_form else 0)
    announced = request.headers.get("content-length", "")
    if announced == "0" or (not announced and "transfer-encoding" not in request.headers):
        raise _no_body()
    if announced.isdecimal() and int(announced[:19]) > max_bytes:
        raise _too_large(limits.max_image_bytes)
    if not is_form and kind not in _BINARY and not kind.startswith("image/"):
        raise _unsupported(kind)
    sink = Form(options.get(b"boundary", b""), limits.max_image_bytes) if is_form else Pieces()
    num_bytes = 0
    try:
        async with asyncio.timeout(limits.body_timeout_s), aclosing(request.stream()) as chunks:
            async for chunk in chunks:
                num_bytes += len(chunk)
                if num_bytes > max_bytes:
                    raise _too_large(limits.max_image_bytes)
                ticket.add_bytes(len(chunk))
                sink.write(chunk)
                if chunk and num_bytes > LARGE_BYTES and limits.is_busy():
                    await asyncio.sleep(PAUSE_S)
        if not num_bytes:
            raise _no_body()
        if num_bytes > LARGE_BYTES:
            upload = await asyncio.get_running_loop().run_in_executor(limits.joiner, sink.finish)
        else:
            upload = sink.finish()
    except TimeoutError:
        raise errors.BodyTooSlow(
            f"The body did not arrive within {limits.body_timeout_s:g} seconds. Send a smaller file, or use a "
            "faster connection."
        ) from None
    if kind == _URL_ENCODED and all(0x20 < byte < 0x7F for byte in upload.image[:_NUM_JUDGED_BYTES]):
        raise _unsupported(kind)  # printable ASCII, as no image is
    return upload


class Pieces:
    """Bytes as they arrive. They are joined once, since a growing buffer is copied again and again.

    Joining takes twice their memory. Small pieces go into a buffer nevertheless.
    """

    def __init__(self) -> None:
        self.num_bytes = 0
        self._pieces: list[bytes] = []
        self._small = io.BytesIO()

    def write(self, piece: bytes) -> None:
        """Keep a piece."""
        self.num_bytes += len(piece)
        if len(piece) < _SMALL_PIECE_BYTES:
            self._small.write(piece)
            return
        self._end_small()
        self._pieces.append(piece)

    def finish(self) -> Upload:
        """Return all bytes as the image, and forget them."""
        self._end_small()
        pieces, self._pieces = self._pieces, []
        return Upload(b"".join(pieces))  # releases the GIL for so many bytes, as all pieces are `bytes`

    def _end_small(self) -> None:
        if self._small.tell():
            self._pieces.append(self._small.getvalue())
            self._small = io.BytesIO()


class Form(MultipartParser):
    """multipart/form-data, parsed as it arrives. It keeps only the names of other fields.

    Source: RFC 2046, section 5.1.1, `preamble` and `transport-padding`.
    """

    def __init__(self, boundary: bytes, max_image_bytes: int) -> None:
        if not boundary:
            detail = "Content-Type names no boundary. Let the client library write this header by itself."
            raise errors.MalformedRequest(detail)
        try:
            super().__init__(boundary)
        except FormParserError:
            detail = "The boundary in Content-Type is too long. Use at most 70 characters."
            raise errors.MalformedRequest(detail) from None
        self._first_delimiter = re.compile(rb"\r\n(--%b)[ \t]{0,254}(?=\r\n|--)" % re.escape(boundary))
        self._before = b"\r\n"  # as if a line ended before the body
        self._has_begun = False
        self._max_image_bytes = max_image_bytes
        self._image: Pieces | None = None
        self._top_k: list[bytes] = []
        self._names: list[str] = []
        self._name = ""  # of the part being read
        self._header_name = self._header_value = self._disposition = b""
        self._is_finished = False

    def write(self, data: bytes) -> int:
        """Parse a piece. Skip text before the first delimiter, and blanks behind it."""
        if not self._has_begun:
            data = self._before + data
            first = self._first_delimiter.search(data)
            if first is None:
                self._before = data[-_MAX_DELIMITER_BYTES:]
                return 0
            self._has_begun = True
            data = first[1] + data[first.end() :]
        try:
            return super().write(data)
        except FormParserError:
            detail = "The multipart body cannot be parsed. Separate its parts by the boundary in Content-Type."
            raise errors.MalformedRequest(detail) from None

    def finish(self) -> Upload:
        """Return the image and the parameters. Raises `MalformedRequest`, `MissingImage`."""
        if not self._is_finished:
            raise errors.MalformedRequest("The multipart body ends before its closing boundary. Send the whole of it.")
        if self._image is None:
            there = ", ".join(self._names) or "no field"
            detail = f"The form has no field {FIELD!r}, but {there}. Send the image as {FIELD!r}."
            raise errors.MissingImage(detail)
        return replace(self._image.finish(), top_k=tuple(value.decode("utf-8", "replace") for value in self._top_k))

    def callback(self, name: str, data: bytes | None = None, start: int | None = None, end: int | None = None) -> None:
        """Take an event of the parser. A table of callbacks and the parser would hold each other, and the image."""
        piece = data[start:end] if data else b""
        match name:
            case "part_begin":
                if len(self._names) == _MAX_PARTS:
                    detail = f"The form has more than {_MAX_PARTS} parts. Send only field {FIELD!r}."
                    raise errors.MalformedRequest(detail)
                self._disposition = b""
            case "header_field":
                self._header_name += piece
            case "header_value":
                self._header_value += piece
            case "header_end":
                if self._header_name.lower() == b"content-disposition":
                    self._disposition = self._header_value
                self._header_name = self._header_value = b""
            case "headers_finished":
                self._begin_field()
            case "part_data" if self._name == TOP_K:
                self._top_k[-1] = (self._top_k[-1] + piece)[:_MAX_PARAMETER_BYTES]
            case "part_data" if self._name == FIELD and self._image is not None:
                if self._image.num_bytes + len(piece) > self._max_image_bytes:
                    raise _too_large(self._max_image_bytes)
                self._image.write(piece)
            case "end":
                self._is_finished = True

    def _begin_field(self) -> None:
        _, options = parse_options_header(self._disposition)
        self._name = options.get(b"name", b"").decode("utf-8", "replace")
        self._names.append(repr(self._name[:40]))
        if self._name == TOP_K:
            self._top_k.append(b"")
        elif self._name == FIELD:
            if self._image is not None:
                detail = f"The form has more than one field {FIELD!r}. Send one image per request."
                raise errors.TooManyImages(detail)
            self._image = Pieces()


def _no_body() -> errors.MissingImage:
    return errors.MissingImage("The request has no body. Send the image as form field 'file', or as the whole body.")


def _too_large(max_image_bytes: int) -> errors.ImageBytesTooLarge:
    return errors.ImageBytesTooLarge(f"This server takes images of up to {max_image_bytes} bytes. Send a smaller copy.")


def _unsupported(kind: str) -> errors.UnsupportedMediaType:
    return errors.UnsupportedMediaType(
        f"The body is {kind[:80]!r}. Send a form with the image in field 'file' (curl -F file=@photo.jpg), or the "
        "file itself with Content-Type image/jpeg, image/png, ... or application/octet-stream."
    )
