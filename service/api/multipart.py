"""Bytes of multipart forms and of raw bodies as they arrive. Each step is bounded. There is no temporary file."""

import io
import re
from dataclasses import dataclass

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from service import errors
from service.api.parameters import TOP_K

FIELD = "file"
"""Name of the form's field that holds an image."""

_MAX_PARAMETER_BYTES = 64
_MAX_OTHER_PARTS = 31
_SMALL_PIECE_BYTES = 4096  # as an object of its own it would take up to ninety times its bytes
_MAX_DELIMITER_BYTES = 1024  # a boundary has up to 256, and nearly as many blanks may follow it


@dataclass(frozen=True)
class Upload:
    """One image file as it was sent, and the values of the form's fields `top_k`."""

    image: bytes
    top_k: tuple[str, ...] = ()


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


class FormParser(MultipartParser):
    """multipart/form-data, parsed as it arrives. A subclass keeps the images. Of other fields it keeps the names.

    Source: RFC 2046, section 5.1.1, `preamble` and `transport-padding`.
    """

    def __init__(self, boundary: bytes, max_images: int) -> None:
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
        self._max_parts = max_images + _MAX_OTHER_PARTS
        self._top_k: list[bytes] = []
        self._names: list[str] = []
        self._name = ""  # of the part being read
        self._header_name = self._header_value = self._disposition = b""
        self._is_finished = False

    @property
    def top_k(self) -> tuple[str, ...]:
        """The values of the fields `top_k`, in order."""
        return tuple(value.decode("utf-8", "replace") for value in self._top_k)

    def write(self, data: bytes) -> int:
        """Parse a piece. Skip text before the first delimiter, and blanks behind it. Raises `MalformedRequest`."""
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

    def check_end(self, *, has_image: bool) -> None:
        """Refuse a form that is cut short, or has no image. Raises `MalformedRequest`, `MissingImage`."""
        if not self._is_finished:
            raise errors.MalformedRequest("The multipart body ends before its closing boundary. Send the whole of it.")
        if not has_image:
            there = ", ".join(self._names) or "no field"
            detail = f"The form has no field {FIELD!r}, but {there}. Send the image as {FIELD!r}."
            raise errors.MissingImage(detail)

    def begin_image(self) -> None:
        """Begin the next image."""
        raise NotImplementedError

    def add_to_image(self, piece: bytes) -> None:
        """Take the next bytes of the image."""
        raise NotImplementedError

    def end_image(self) -> None:
        """End the image."""

    def callback(self, name: str, data: bytes | None = None, start: int | None = None, end: int | None = None) -> None:
        """Take an event of the parser. A table of callbacks and the parser would hold each other, and the image."""
        piece = data[start:end] if data else b""
        match name:
            case "part_begin":
                if len(self._names) == self._max_parts:
                    detail = f"The form has more than {self._max_parts} parts. Send only field {FIELD!r}."
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
            case "part_data" if self._name == FIELD:
                self.add_to_image(piece)
            case "part_end" if self._name == FIELD:
                self.end_image()
            case "end":
                self._is_finished = True

    def _begin_field(self) -> None:
        _, options = parse_options_header(self._disposition)
        self._name = options.get(b"name", b"").decode("utf-8", "replace")
        self._names.append(repr(self._name[:40]))
        if self._name == TOP_K:
            self._top_k.append(b"")
        elif self._name == FIELD:
            self.begin_image()


class Form(FormParser):
    """Form with one image."""

    def __init__(self, boundary: bytes, max_image_bytes: int) -> None:
        super().__init__(boundary, max_images=1)
        self._max_image_bytes = max_image_bytes
        self._image: Pieces | None = None

    def begin_image(self) -> None:
        """Begin the image. Raises `TooManyImages` for a second one."""
        if self._image is not None:
            detail = f"The form has more than one field {FIELD!r}. Send one image per request."
            raise errors.TooManyImages(detail)
        self._image = Pieces()

    def add_to_image(self, piece: bytes) -> None:
        """Keep the next bytes of the image. Raises `ImageBytesTooLarge`."""
        assert self._image is not None
        if self._image.num_bytes + len(piece) > self._max_image_bytes:
            raise image_too_large(self._max_image_bytes)
        self._image.write(piece)

    def finish(self) -> Upload:
        """Return the image and the parameters. Raises `MalformedRequest`, `MissingImage`."""
        self.check_end(has_image=self._image is not None)
        assert self._image is not None
        return Upload(self._image.finish().image, self.top_k)


def image_too_large(max_image_bytes: int) -> errors.ImageBytesTooLarge:
    """Return the refusal of an image file above the limit."""
    return errors.ImageBytesTooLarge(f"This server takes images of up to {max_image_bytes} bytes. Send a smaller copy.")
