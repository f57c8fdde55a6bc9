"""Bodies as they arrive: the image itself, or a form around it."""

import io
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from service.api.delimiters import Delimiters
from service.api.parameters import TOP_K
from service.errors import ImageBytesTooLarge, MalformedRequest, MissingImage, TooManyImages, UnsupportedMediaType

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

FIELD = "file"
PARAMETERS = (TOP_K,)
"""Fields of a form that are kept beside the image."""

URL_ENCODED = "application/x-www-form-urlencoded"
"""Media type of a web form, and of anything that curl sends by --data-binary."""

_NUM_JUDGED_BYTES = 512  # an image has bytes among them that no such form has
_MAX_PARAMETER_BYTES = 64
_MAX_PARTS = 32
_SMALL_PIECE_BYTES = 4096  # as an object of its own it would take up to ninety times its bytes


@dataclass(frozen=True)
class Upload:
    """Content of one request.

    Attributes:
        image: The file as it was sent.
        parameters: Values of the form's fields named in `PARAMETERS`, in their order.
    """

    image: bytes
    parameters: dict[str, list[str]] = field(default_factory=dict)


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

    def join(self) -> bytes:
        """Return all bytes, and forget them."""
        self._end_small()
        pieces, self._pieces = self._pieces, []
        return b"".join(pieces)  # releases the GIL for so many bytes, as all pieces are `bytes`

    def _end_small(self) -> None:
        if self._small.tell():
            self._pieces.append(self._small.getvalue())
            self._small = io.BytesIO()


class Raw(Pieces):
    """Body that is the image itself.

    Args:
        is_perhaps_a_form: Whether it may be a URL-encoded form. Such a form is printable ASCII. An image is not.
    """

    def __init__(self, *, is_perhaps_a_form: bool) -> None:
        super().__init__()
        self._is_perhaps_a_form = is_perhaps_a_form

    def finish(self) -> Upload:
        """Return the image. Raises `UnsupportedMediaType` where it is a form."""
        image = self.join()
        if self._is_perhaps_a_form and all(0x20 < byte < 0x7F for byte in image[:_NUM_JUDGED_BYTES]):
            raise unsupported(URL_ENCODED)
        return Upload(image)

    def close(self) -> None:
        """Do nothing. A form has something to drop."""


class Form:
    """multipart/form-data, parsed as it arrives. It keeps only the names of other fields."""

    def __init__(self, boundary: bytes, max_image_bytes: int) -> None:
        self._max_image_bytes = max_image_bytes
        self._image: Pieces | None = None
        self._is_image = False  # whether the part being read is the image
        self._parameters: dict[str, list[bytes]] = {}
        self._parameter = ""  # the name of the part being read, where it is one
        self._is_finished = False
        self._names: list[str] = []
        self._header_name = self._header_value = self._disposition = b""
        callbacks: MultipartCallbacks = {
            "on_part_begin": self._begin_part,
            "on_header_field": self._read_header_name,
            "on_header_value": self._read_header_value,
            "on_header_end": self._end_header,
            "on_headers_finished": self._begin_data,
            "on_part_data": self._read_data,
            "on_end": self._finish,
        }
        if not boundary:
            raise MalformedRequest(
                "Content-Type names no boundary: let the client library write this header by itself."
            )
        self._delimiters = Delimiters(boundary)
        try:
            self._parser = MultipartParser(boundary, callbacks)
        except FormParserError:
            raise MalformedRequest("The boundary in Content-Type is too long: use at most 70 characters.") from None

    def write(self, chunk: bytes) -> None:
        """Parse a piece."""
        self._parse(self._delimiters.feed(chunk))

    def _parse(self, data: bytes) -> None:
        try:
            self._parser.write(data)
        except FormParserError:
            raise MalformedRequest(
                "The multipart body cannot be parsed: separate its parts by the boundary in Content-Type."
            ) from None

    def finish(self) -> Upload:
        """Return the image and the parameters. Raises `MalformedRequest`, `MissingImage`."""
        self._parse(self._delimiters.rest())
        if not self._is_finished:
            raise MalformedRequest("The multipart body ends before its closing boundary: send the whole of it.")
        if self._image is None:
            there = ", ".join(self._names) or "no field"
            raise MissingImage(f"The form has no field {FIELD!r}, but {there}: send the photograph as {FIELD!r}.")
        parameters = {
            name: [value.decode("utf-8", "replace") for value in values] for name, values in self._parameters.items()
        }
        return Upload(self._image.join(), parameters)

    def close(self) -> None:
        """Drop the parser. It and this object hold each other, and the image until a collection."""
        del self._parser

    def _begin_part(self) -> None:
        if len(self._names) == _MAX_PARTS:
            raise MalformedRequest(f"The form has more than {_MAX_PARTS} parts: send only field {FIELD!r}.")
        self._disposition = b""

    def _read_header_name(self, data: bytes, start: int, end: int) -> None:
        self._header_name += data[start:end]

    def _read_header_value(self, data: bytes, start: int, end: int) -> None:
        self._header_value += data[start:end]

    def _end_header(self) -> None:
        if self._header_name.lower() == b"content-disposition":
            self._disposition = self._header_value
        self._header_name = self._header_value = b""

    def _begin_data(self) -> None:
        _, options = parse_options_header(self._disposition)
        name = options.get(b"name", b"").decode("utf-8", "replace")
        self._is_image = name == FIELD
        if self._is_image and self._image is not None:
            raise TooManyImages(f"The form has more than one field {FIELD!r}: /predict takes one image per request.")
        if self._is_image:
            self._image = Pieces()
        self._parameter = name if name in PARAMETERS else ""
        if self._parameter:
            self._parameters.setdefault(name, []).append(b"")
        self._names.append(repr(name[:40]))

    def _read_data(self, data: bytes, start: int, end: int) -> None:
        if self._is_image:
            assert self._image is not None
            if self._image.num_bytes + end - start > self._max_image_bytes:
                raise too_large(self._max_image_bytes)
            self._image.write(data[start:end])
        elif self._parameter:
            values = self._parameters[self._parameter]
            values[-1] = (values[-1] + data[start:end])[:_MAX_PARAMETER_BYTES]

    def _finish(self) -> None:
        self._is_finished = True


def too_large(max_image_bytes: int) -> ImageBytesTooLarge:
    """Return the refusal of an image with too many bytes."""
    return ImageBytesTooLarge(f"This server takes images of up to {max_image_bytes} bytes: send a smaller copy.")


def unsupported(kind: str) -> UnsupportedMediaType:
    """Return the refusal of a media type."""
    return UnsupportedMediaType(
        f"The body is {kind[:80]!r}: send a form with the photograph in field 'file' (curl -F file=@photo.jpg), or the "
        "file itself with Content-Type image/jpeg, image/png, ... or application/octet-stream."
    )
