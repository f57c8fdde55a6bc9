"""Base64 of JSON documents -> the bytes of images. It works in slices, since a decoder holds the GIL meanwhile."""

import io
import json
import re
from binascii import Error, a2b_base64, b2a_base64
from collections.abc import Iterator

from service import errors
from service.api.json_bodies import JsonValue, LongText, malformed
from service.api.multipart import image_too_large

_SLICE_BYTES = 64 * 1024  # a quarter of a millisecond
# Six of these are longer than what an escape has left. A slice may end behind them.
_NO_ESCAPE = re.compile(rb"[A-Za-z0-9+/=]{6}")
_DATA_URL = re.compile(rb"data:(?:[\w.+-]+/[\w.+-]+)?;base64,", re.IGNORECASE)
_URL = re.compile(rb"\s*[A-Za-z][A-Za-z0-9+.-]*:")


def decode_image(value: JsonValue, name: str, max_image_bytes: int) -> bytes:
    """Decode the base64 or the data URL of one image. Nothing is fetched.

    The alphabet is the standard one. Padding is required, whitespace is refused, and unused bits are zero. A data URL
    has no parameter but `;base64`.

    Args:
        value: Value of the document.
        name: Place of the value in the document, for messages.
        max_image_bytes: Limit of the image file.

    Raises:
        InvalidParameter: The value is no string.
        MissingImage: The string is empty.
        InvalidImage: The string is no base64, or a URL of another kind.
        MalformedRequest: The string has a character or an escape that JSON does not allow.
        ImageBytesTooLarge: The image is longer than the limit.

    Source: RFC 4648, sections 3.1 to 3.5, and RFC 2397.
    """
    if not isinstance(value, str | LongText):
        raise errors.InvalidParameter(f"{name} is no string. Send the image file as a string in base64.")
    image = io.BytesIO()  # it gives its memory away without a copy
    rest, is_ended = b"", False
    for number, piece in enumerate(_read_slices(value, name)):
        rest += piece if number else _skip_prefix(piece, name)
        num_whole = len(rest) // 4 * 4
        whole, rest = rest[:num_whole], rest[num_whole:]
        decoded = _decode_quads(whole, name)
        if is_ended and decoded:
            raise _no_base64(name)
        is_ended = is_ended or len(decoded) < num_whole // 4 * 3
        if image.tell() + len(decoded) > max_image_bytes:
            raise image_too_large(max_image_bytes)
        image.write(decoded)
    if rest:
        raise _no_base64(name)
    if not image.tell():
        raise errors.MissingImage(f"{name} is empty. Send the image file in base64.")
    return image.getvalue()


def _read_slices(value: str | LongText, name: str) -> Iterator[bytes]:
    """Yield the string in slices, without its escapes."""
    if isinstance(value, str):
        if not value.isascii():
            raise _no_base64(name)
        yield value.encode()
        return
    start = value.start
    while start < value.end:
        end = _find_cut(value, start, name)
        yield _unescape(value.body[start:end], name)
        start = end


def _find_cut(text: LongText, start: int, name: str) -> int:
    """Return where the slice from `start` ends. No escape is cut."""
    end = start + _SLICE_BYTES
    if end >= text.end:
        return text.end
    for earliest in (end - 64, start):
        if cuts := list(_NO_ESCAPE.finditer(text.body, earliest, end)):
            return cuts[-1].end()
    raise _no_base64(name)


def _unescape(piece: bytes, name: str) -> bytes:
    """Return a slice without escapes, such as those for slashes. Check the slice first if it is no base64."""
    if b"\\" not in piece and piece.isascii() and piece.decode().isprintable():
        return piece
    try:
        unescaped: str = json.loads(b'"%b"' % piece)
    except UnicodeDecodeError:
        raise malformed("It is not UTF-8") from None
    except json.JSONDecodeError as error:
        raise malformed(error.msg) from None
    if not unescaped.isascii():
        raise _no_base64(name)
    return unescaped.encode()


def _skip_prefix(piece: bytes, name: str) -> bytes:
    """Return the first slice without the beginning of a data URL."""
    if data_url := _DATA_URL.match(piece):
        return piece[data_url.end() :]
    if _URL.match(piece):
        raise errors.InvalidImage(
            f"{name} is a URL, and this server fetches nothing. A data URL in base64 is the one kind that is taken. "
            "Send the image file itself."
        )
    return piece


def _decode_quads(quads: bytes, name: str) -> bytes:
    """Decode whole groups of four characters. Only the last one may have padding."""
    try:
        decoded = a2b_base64(quads, strict_mode=True)
    except Error:
        raise _no_base64(name) from None
    # The decoder takes unused bits that are not zero, and ends at padding.
    num_last = (len(decoded) - 1) % 3 + 1
    if decoded and (
        b2a_base64(decoded[-num_last:], newline=False) != quads[-4:] or (len(decoded) + 2) // 3 * 4 != len(quads)
    ):
        raise _no_base64(name)
    return decoded


def _no_base64(name: str) -> errors.InvalidImage:
    return errors.InvalidImage(
        f"{name} is no base64. Send the image file in the standard alphabet, with padding, without line breaks."
    )
