"""Parameters of a prediction: in the query, in the headers, in the fields of a form."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated
from urllib.parse import parse_qsl

from pydantic import Field, TypeAdapter, ValidationError
from starlette.requests import Request

from service.errors import InvalidParameter

TOP_K = "top_k"
TIMEOUT_HEADER = "x-request-timeout-ms"
TopK = Annotated[int, Field(ge=1, le=100_000)]
TimeoutMs = Annotated[int, Field(ge=1)]
_MAX_TIMEOUT_MS = 10**9  # a float holds it, and no server allows as much

_to_top_k = TypeAdapter(TopK).validate_python
_to_timeout_ms = TypeAdapter(TimeoutMs).validate_python


@dataclass(frozen=True)
class Parameters:
    """Parameters that stand outside the body.

    Attributes:
        top_k: Number of scores. None means all classes.
        timeout_s: The client's own timeout, upload included, in seconds. None means that it has none.
    """

    top_k: int | None
    timeout_s: float | None


def read_parameters(request: Request) -> Parameters:
    """Read the query and the headers of a request.

    Raises:
        InvalidParameter: A parameter is unknown, out of range, or has two values.
    """
    top_k_text: str | None = None
    for name, value in parse_qsl(request.scope["query_string"].decode("latin-1"), keep_blank_values=True):
        if name != TOP_K:
            raise InvalidParameter(
                f"{name[:40]!r} is no parameter of {request.scope['path']}. The nearest is {TOP_K!r}. Write that, or "
                "leave it out."
            )
        if top_k_text is not None and value != top_k_text:
            raise _contradiction(top_k_text, value)
        top_k_text = value
    top_k = timeout_s = None
    if top_k_text is not None:
        top_k = _parse(TOP_K, top_k_text, _to_top_k, repr(top_k_text)[:80])
    if (text := request.headers.get(TIMEOUT_HEADER)) is not None:
        timeout_s = min(_parse(TIMEOUT_HEADER, text, _to_timeout_ms, repr(text)[:80]), _MAX_TIMEOUT_MS) / 1000
    return Parameters(top_k, timeout_s)


def join_top_k(of_query: int | None, of_form: Sequence[str]) -> int | None:
    """Return the one `top_k` of the query and the form's fields.

    Raises:
        InvalidParameter: A value is no number in range, or two values differ.
    """
    top_k = of_query
    for text in of_form:
        value = _parse(TOP_K, text, _to_top_k, repr(text[:40]))
        if top_k not in (None, value):
            raise _contradiction(str(top_k), text)
        top_k = value
    return top_k


def _parse(name: str, text: str, to_number: Callable[[str], int], shown: str) -> int:
    try:
        return to_number(text)
    except ValidationError as error:
        reason = error.errors(include_url=False)[0]["msg"]
        raise InvalidParameter(f"{name} is {shown}. {reason}.") from None


def _contradiction(first: str, second: str) -> InvalidParameter:
    return InvalidParameter(f"{TOP_K} is given twice, as {first[:40]!r} and {second[:40]!r}. Give it once.")
