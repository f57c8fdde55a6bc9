"""Delimiters of multipart bodies, made plain for a strict parser.

Text before the first delimiter is skipped. Blanks between a delimiter and the end of its line are removed.

Source: RFC 2046, section 5.1.1, `preamble` and `transport-padding`.
"""

_BLANKS = b" \t"
_MAX_PADDING_BYTES = 256


class Delimiters:
    """The bytes of a body as they arrive, with plain delimiters.

    Args:
        boundary: As the Content-Type names it, not empty.
    """

    def __init__(self, boundary: bytes) -> None:
        self._line = b"\r\n--" + boundary
        self._held = b"\r\n"  # as if a line ended before the body
        self._has_begun = False

    def feed(self, data: bytes) -> bytes:
        """Return what can be passed on by now."""
        if self._held:
            data = self._held + data
        position = data.find(self._line)
        pieces, begin = [], 0
        while position >= 0:
            end = position + len(self._line)
            after = data[end : end + _MAX_PADDING_BYTES]
            line_end = after.lstrip(_BLANKS)
            if line_end.startswith((b"\r\n", b"--")):
                if not self._has_begun:
                    self._has_begun, begin = True, position + len(b"\r\n")
                if len(line_end) < len(after):
                    pieces.append(data[begin:end])
                    begin = end + len(after) - len(line_end)
            position = data.find(self._line, end)
        held_from = max(begin, self._find_begun(data))
        self._held = data[held_from:]
        pieces.append(data[begin:held_from])
        return b"".join(pieces) if self._has_begun else b""

    def rest(self) -> bytes:
        """Return what was held back, when all has come."""
        return self._held if self._has_begun else b""

    def _find_begun(self, data: bytes) -> int:
        """Return where an unfinished delimiter may begin, else the end of `data`."""
        position = data.find(b"\r", max(0, len(data) - len(self._line) - _MAX_PADDING_BYTES))
        while position >= 0:
            tail = data[position:]
            after = tail.removeprefix(self._line).strip(_BLANKS)
            if self._line.startswith(tail) or (tail.startswith(self._line) and after in (b"", b"\r", b"-")):
                return position
            position = data.find(b"\r", position + 1)
        return len(data)
