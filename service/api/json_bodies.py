"""Body in JSON -> its document. Each step is bounded.

A parser of JSON holds the GIL for the whole of a string. That of a large image would stall the event loop for 60 ms.
So long strings are not parsed. They stay in the body, and `base64_images` decodes them in slices. `number_arrays` does
so with the arrays of tensors.
"""

import asyncio
import json
import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

from starlette.requests import Request

from service import errors
from service.api.multipart import Pieces
from service.api.number_arrays import NumberArray, find_array
from service.api.upload import UploadLimits, check_length, read_into
from service.inference.admission import Ticket

MEDIA_TYPE = "application/json"
MAX_STRUCTURE_BYTES = 64 * 1024
"""Limit of a document without its long strings, in bytes."""
MAX_DEPTH = 16
"""Limit of nesting. The root is 1."""
_INLINE_BYTES = 256 * 1024  # a thread would take longer to begin with less
_LONG_BYTES = 64  # a longer string stays in the body
_WINDOW_BYTES = 1024 * 1024
_PLACE = b"NaN"  # stands for a long value. The document has none outside its strings
_BRACKETS = re.compile(rb"[\[\]{}]")
_CONSTANTS = re.compile(rb"[NI]")  # NaN, Infinity. JSON has no capital but the E of a number
_COLON = re.compile(rb"[ \t\r\n]*:")
_QUOTE, _QUOTE_OR_ARRAY = re.compile(rb'"'), re.compile(rb'["\[]')
T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class LongText:
    """String of a document between two positions of the body, escapes included. It holds the whole body in memory."""

    body: bytes = field(repr=False)
    start: int
    end: int


JsonValue = str | LongText | NumberArray | int | float | bool | list["JsonValue"] | dict[str, "JsonValue"] | None
"""Value in a document. A string of more than 64 bytes is a `LongText`, unless it is a key."""


def max_body_bytes(num_image_bytes: int) -> int:
    """Return the limit of a body with images of so many bytes: their base64 and 64 KiB."""
    return (num_image_bytes + 2) // 3 * 4 + MAX_STRUCTURE_BYTES


async def read_json(
    request: Request, ticket: Ticket, limits: UploadLimits, translate: Callable[[JsonValue], T], max_bytes: int
) -> T:
    """Read a body in JSON, and return what `translate` makes of its document, as `read_body` does.

    Raises as that, `ImageBytesTooLarge` for a document that is too long without its long strings, and
    `MalformedRequest` for one that `parse_json` does not take.
    """
    return await read_body(request, ticket, limits, lambda body: translate(parse_json(body)), max_bytes)


async def read_body(
    request: Request, ticket: Ticket, limits: UploadLimits, translate: Callable[[bytes], T], max_bytes: int
) -> T:
    """Read a body, and return what `translate` makes of it.

    The ticket counts each piece before it is kept. A thread translates a body above 256 KiB. The body is let go before
    the return.

    Args:
        request: Its encoding and its media type have been checked.
        ticket: Of the admitted request.
        limits: Those of every upload.
        translate: Called once, perhaps in a thread. Its result must not hold a `LongText`. Its errors are raised here.
        max_bytes: Limit of the body.

    Raises:
        MissingImage: There is no body.
        ImageBytesTooLarge: The body is longer than `max_bytes`.
        QueueFull: The ticket takes no more bytes.
        BodyTooSlow: The body did not arrive in time.
    """
    too_large = partial(_body_too_large, max_bytes)
    check_length(request, max_bytes, too_large)
    pieces = Pieces()
    try:
        async with asyncio.timeout(limits.body_timeout_s):
            num_bytes = await read_into(pieces, request, ticket, limits, max_bytes, too_large)
    except TimeoutError:
        raise limits.too_slow() from None

    def work() -> T:
        return translate(pieces.finish().image)

    if num_bytes <= _INLINE_BYTES:
        return work()
    working = asyncio.get_running_loop().run_in_executor(limits.joiner, work)
    try:
        return await working
    finally:
        del working  # it holds the error that is being raised, whose frames hold it and the body


def parse_json(body: bytes, max_structure_bytes: int = MAX_STRUCTURE_BYTES, *, lifts_arrays: bool = False) -> JsonValue:
    """Parse a document in UTF-8. A long string is not looked into.

    `lifts_arrays` is for documents with tensors. A long array of numbers is a `NumberArray` there, and is not parsed.

    Raises:
        MalformedRequest: It is no JSON, has more than 16 levels, or repeats a key. Or a number is not finite, or a
            short string has half of a surrogate pair.
        ImageBytesTooLarge: Without what is not parsed it is longer than `max_structure_bytes`.

    Source: RFC 8259. It lets a parser set limits (section 9), and asks for unique keys (section 4).
    """
    structure = _Structure(max_structure_bytes)
    mark, position = _QUOTE_OR_ARRAY if lifts_arrays else _QUOTE, 0
    while found := mark.search(body, position, position + structure.room + 1):
        start = found.start()
        structure.keep(body[position:start])
        if found[0] == b"[":
            array = find_array(body, start)
            position = array.end if array else start + 1
            if array is None:
                structure.keep(b"[")
            else:
                structure.lift(array)
            continue
        position = structure.find_end(body, start + 1) + 1
        if position - start <= _LONG_BYTES or _COLON.match(body, position, position + structure.room):
            structure.keep_text(body, start, position)
        else:
            structure.lift(LongText(body, start + 1, position - 1))
    structure.keep(body[position : position + structure.room + 1])
    return structure.parse()


class _Structure:
    """Document without its long values."""

    def __init__(self, max_bytes: int) -> None:
        self.room = self._max_bytes = max_bytes
        self._depth = 0
        self._pieces: list[bytes] = []
        self._lifted: list[LongText | NumberArray] = []

    def keep(self, piece: bytes) -> None:
        """Keep what stands between two strings."""
        if _CONSTANTS.search(piece):
            raise malformed("NaN and Infinity are no numbers of JSON")
        for bracket in _BRACKETS.findall(piece):
            self._depth += 1 if bracket in b"[{" else -1
            if self._depth > MAX_DEPTH:
                raise malformed(f"It is nested deeper than {MAX_DEPTH} levels")
        self._add(piece)

    def find_end(self, body: bytes, start: int) -> int:
        """Return the position of the quote that ends a string. `start` is that of its first character.

        An escaped quote takes room. No base64 has one.
        """
        position = start
        while True:
            while (end := body.find(b'"', position, position + _WINDOW_BYTES)) < 0:
                position += _WINDOW_BYTES
                if position >= len(body):
                    raise malformed("A string does not end")
            if _count_backslashes(body, start, end) % 2 == 0:
                return end
            position = end + 1
            self._take_room(2)

    def keep_text(self, body: bytes, start: int, end: int) -> None:
        """Keep a short string or a key, with its quotes."""
        self._add(body[start : min(end, start + self.room + 1)])

    def lift(self, value: LongText | NumberArray) -> None:
        """Keep a place for a long value."""
        self._add(_PLACE)
        self._lifted.append(value)

    def parse(self) -> JsonValue:
        """Return the document."""
        lifted = iter(self._lifted)
        try:
            text = b"".join(self._pieces).decode()
            value: JsonValue = json.loads(
                text,
                object_pairs_hook=_make_object,
                parse_constant=lambda _: next(lifted),  # the parser meets the places in their order
                parse_float=_parse_float,
            )
        except UnicodeDecodeError:
            raise malformed("It is not UTF-8") from None
        except json.JSONDecodeError as error:
            raise malformed(error.msg) from None
        except ValueError:  # of int()
            raise malformed("A number has thousands of digits") from None
        if "\\u" in text:
            _check_texts(value)
        return value

    def _add(self, piece: bytes) -> None:
        self._take_room(len(piece))
        self._pieces.append(piece)

    def _take_room(self, num_bytes: int) -> None:
        self.room -= num_bytes
        if self.room < 0:
            raise errors.ImageBytesTooLarge(
                f"The JSON has more than {self._max_bytes} bytes beside its images. Send the images alone."
            )


def check_text(text: str) -> str:
    """Return a text that UTF-8 can write, as an answer may. Raises `MalformedRequest` for half of a surrogate pair."""
    if not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text):
        raise malformed("A string has half of a surrogate pair")
    return text


def _check_texts(value: JsonValue) -> None:
    """Check each short string of a document, and each key."""
    if isinstance(value, str):
        check_text(value)
    elif isinstance(value, list):
        for one in value:
            _check_texts(one)
    elif isinstance(value, dict):
        for key, one in value.items():
            check_text(key)
            _check_texts(one)


def malformed(reason: str) -> errors.MalformedRequest:
    """Return the refusal of a body. The reason is a sentence without its end."""
    return errors.MalformedRequest(f"The body is no JSON that this server takes. {reason}. Let a library write it.")


def _count_backslashes(body: bytes, start: int, end: int) -> int:
    """Return the number of backslashes right before `end`, from `start` on."""
    size = 16
    while True:
        tail = body[max(start, end - size) : end]
        num_backslashes = len(tail) - len(tail.rstrip(b"\\"))
        if num_backslashes < size:
            return num_backslashes
        size *= 16


def _make_object(pairs: list[tuple[str, JsonValue]]) -> dict[str, JsonValue]:
    made = dict(pairs)
    if len(made) < len(pairs):
        raise malformed("An object has a key twice")
    return made


def _parse_float(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise malformed("A number is too large")
    return number


def _body_too_large(max_bytes: int) -> errors.ImageBytesTooLarge:
    return errors.ImageBytesTooLarge(f"This server takes JSON of up to {max_bytes} bytes here. Send smaller images.")
