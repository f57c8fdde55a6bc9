"""Headers of requests to a service: lines of the flag --header."""

from collections.abc import Sequence
from typing import Annotated

from cyclopts import Parameter

from service.errors import InvalidParameter

HeaderLines = Annotated[tuple[str, ...], Parameter(name="--header", negative="")]
"""Lines such as "X-API-Key: ...", one per --header."""


def check_headers(lines: Sequence[str]) -> None:
    """Refuse lines that HTTP cannot carry. Raises `InvalidParameter` without the line, which may hold a key."""
    for line in lines:
        name, colon, _ = line.partition(":")
        if not colon or not name.strip() or not line.isprintable() or not line.isascii():
            raise InvalidParameter('--header is malformed. Give it as "Name: value", in printable ASCII.')


def split_headers(lines: Sequence[str]) -> list[tuple[str, str]]:
    """Return the names and values of lines that `check_headers` accepts."""
    return [(name.strip(), value.strip()) for name, _, value in (line.partition(":") for line in lines)]
