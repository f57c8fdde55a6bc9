"""Long arrays of numbers in JSON -> pixels. They are parsed in slices, since a parser holds the GIL meanwhile.

A batch of 32 images has 5 million numbers. Parsed at once, they would take a gigabyte, and stall the event loop.
"""

import json
import math
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from service.errors import InvalidParameter, MalformedRequest
from service.imaging.pixels import Pixels

_SLICE_BYTES = 32 * 1024  # a third of a millisecond
_FIRST_WINDOW_BYTES = 256  # most arrays of a document end within it
_WINDOW_BYTES = 64 * 1024
_SHORT_BYTES = 256  # a shorter array stays in the document
_BLANKS = b" \t\r\n"
_OF_NUMBERS = b"0123456789+-.eE"
_OPENING, _CLOSING, _COMMA = b"[],"
_BRACKETS_TO_BLANKS = bytes.maketrans(b"[]", b"  ")

_DEPTHS = np.zeros(256, np.int8)
_DEPTHS[_OPENING], _DEPTHS[_CLOSING] = 1, -1
_IS_FOREIGN = np.ones(256, np.bool_)
_IS_FOREIGN[list(_OF_NUMBERS + _BLANKS + b"[],")] = False


@dataclass(frozen=True, eq=False)
class NumberArray:
    """Array of a document with nothing but numbers and arrays, between two positions of the body.

    It holds the whole body in memory. What is between its brackets has not been parsed.
    """

    body: bytes = field(repr=False)
    start: int
    end: int
    num_values: int


def find_array(body: bytes, start: int) -> NumberArray | None:
    """Return the array that begins at `start`, or None if it is short or has something else than numbers."""
    position, size, depth, num_commas = start, _FIRST_WINDOW_BYTES, 0, 0
    while position < len(body):
        window = body[position : position + size]
        codes = np.frombuffer(window, np.uint8)
        depths = depth + np.cumsum(_DEPTHS[codes], dtype=np.int32)
        length = _find_first(depths == 0)
        if _IS_FOREIGN[codes[:length]].any():
            return None
        num_commas += window.count(b",", 0, length)
        if length is not None:
            end = position + length + 1
            return NumberArray(body, start, end, num_commas + 1) if end - start > _SHORT_BYTES else None
        position, size, depth = position + len(window), min(4 * size, _WINDOW_BYTES), int(depths[-1])
    return None


def read_pixels(
    array: NumberArray, shape: tuple[int, ...], name: str, *, is_float: bool = False, may_be_flat: bool = False
) -> Pixels:
    """Read images of uint8 or float32 numbers.

    Args:
        array: Of the document.
        shape: (height, width, channels) of one image, or (N, height, width, channels).
        name: Place of the array in the document, for messages.
        is_float: Whether the numbers are float32. They are rounded half to even. Else they are integers.
        may_be_flat: Whether one array of all numbers is taken, too. It needs an axis N.

    Returns:
        uint8, of that shape.

    Raises:
        MalformedRequest: It is no JSON.
        InvalidParameter: It has another shape, or a number that is no pixel.
    """
    num_values = math.prod(shape)
    if array.num_values != num_values:
        raise _wrong_shape(name, shape)
    start, end = array.start, array.end
    if len(shape) > 3:  # the pattern repeats from image to image
        start, end = start + 1, end - 1
    is_flat = may_be_flat and not array.body[start:end].lstrip(_BLANKS).startswith(b"[")
    pattern = _FLAT if is_flat else _make_pattern(shape[-3:])
    pixels = np.empty(num_values, np.uint8)
    num_read = num_marks = 0
    while start < end:
        cut = _find_cut(array.body, start, end)
        piece = array.body[start:cut] + (b"," if cut == end else b"")
        start = cut
        marks = piece.translate(None, _OF_NUMBERS + _BLANKS)
        offset = num_marks % (len(pattern) // 2)
        num_marks += len(marks)
        if marks != pattern[offset : offset + len(marks)] or _has_misplaced(piece):
            raise _wrong_shape(name, shape)
        read = _parse(piece, name, is_float=is_float)
        pixels[num_read : num_read + len(read)] = read
        num_read += len(read)
    return pixels.reshape(shape)


def round_pixels(values: NDArray[np.float32], name: str) -> Pixels:
    """Round float32 pixels half to even, of any shape. Raises `InvalidParameter` for one outside 0 to 255, or NaN."""
    if not (values.min() >= 0 and values.max() <= 255):  # NaN fails each comparison
        raise InvalidParameter(f"{name} has a value that is no pixel. Send finite numbers from 0 to 255.")
    return np.rint(values).astype(np.uint8)


_FLAT = b"," * 2 * _SLICE_BYTES


def _find_first(found: NDArray[np.bool_]) -> int | None:
    index = int(found.argmax())
    return index if found[index] else None


@lru_cache(maxsize=2)  # one size a model, and a switch of versions may change it
def _make_pattern(shape: tuple[int, ...]) -> bytes:
    """Return the brackets and commas of one image and the comma behind it, twice. So a slice may begin anywhere."""
    pattern = b","
    for size in reversed(shape):
        pattern = b"[" + (pattern * size)[:-1] + b"],"
    return pattern * 2


def _find_cut(body: bytes, start: int, end: int) -> int:
    """Return where the slice from `start` ends: behind a comma, or at `end`."""
    if end - start <= _SLICE_BYTES:
        return end
    cut = body.rfind(b",", start, start + _SLICE_BYTES) + 1
    if cut == 0:
        raise MalformedRequest("The JSON has a number that is too long. Let a library write it.")
    return cut


def _has_misplaced(piece: bytes) -> bool:
    """Return whether a number stands before an opening bracket or behind a closing one."""
    codes = np.frombuffer(piece.translate(None, _BLANKS), np.uint8)
    before, after = codes[:-1], codes[1:]
    opens_late = (after == _OPENING) & (before != _OPENING) & (before != _COMMA)
    closes_early = (before == _CLOSING) & (after != _CLOSING) & (after != _COMMA)
    return bool((opens_late | closes_early).any())


def _parse(piece: bytes, name: str, *, is_float: bool) -> Pixels:
    """Parse numbers with a comma behind each. Brackets are passed over."""
    try:
        values = json.loads(b"[%b]" % piece.translate(_BRACKETS_TO_BLANKS)[:-1])
    except json.JSONDecodeError as error:
        raise MalformedRequest(f"{name} is no JSON. {error.msg}. Let a library write it.") from None
    except ValueError:  # of int()
        raise MalformedRequest(f"{name} has a number with thousands of digits. Let a library write it.") from None
    try:
        if not is_float:
            return np.frombuffer(bytes(values), np.uint8)
        with np.errstate(over="ignore"):
            return round_pixels(np.array(values, np.float64).astype(np.float32), name)
    except (TypeError, ValueError, OverflowError):
        kind = "finite numbers" if is_float else "integers"
        raise InvalidParameter(f"{name} has a value that is no pixel. Send {kind} from 0 to 255.") from None


def _wrong_shape(name: str, shape: tuple[int, ...]) -> InvalidParameter:
    return InvalidParameter(f"{name} has another shape than {list(shape)}. Send RGB images of that shape, row by row.")
