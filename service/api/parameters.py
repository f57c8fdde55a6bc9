"""Parameters of a prediction: in the query, in the headers, in the fields of a form."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated
from urllib.parse import parse_qsl

from pydantic import Field, TypeAdapter, ValidationError
from starlette.requests import Request

from service.errors import InvalidParameter

TOP_K = "top_k"
LABEL = "label"
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


@dataclass(frozen=True)
class ExplanationParameters:
    """Parameters of an explanation.

    Attributes:
        label: Class to explain. None means the most probable one.
        timeout_s: The client's own timeout, upload included, in seconds. None means that it has none.
    """

    label: str | None
    timeout_s: float | None


def read_parameters(request: Request) -> Parameters:
    """Read the query and the headers of a request.

    Raises:
        InvalidParameter: A parameter is unknown, out of range, or has two values.
    """
    text = _read_query(request, TOP_K)
    top_k = None if text is None else _parse(TOP_K, text, _to_top_k, repr(text)[:80])
    return Parameters(top_k, _read_timeout(request))


def read_explanation_parameters(request: Request) -> ExplanationParameters:
    """Read the query and the headers of an explanation. Errors are those of `read_parameters`."""
    return ExplanationParameters(_read_query(request, LABEL), _read_timeout(request))


def _read_query(request: Request, parameter: str) -> str | None:
    """Return the value of the only parameter that a query may have."""
    text: str | None = None
    for name, value in parse_qsl(request.scope["query_string"].decode("utf-8", "replace"), keep_blank_values=True):
        if name != parameter:
            raise InvalidParameter(
                f"{name[:40]!r} is no parameter of {request.scope['path']}. The nearest is {parameter!r}. Write that, "
                "or leave it out."
            )
        if text is not None and value != text:
            raise _contradiction(parameter, text, value)
        text = value
    return text


def _read_timeout(request: Request) -> float | None:
    if (text := request.headers.get(TIMEOUT_HEADER)) is None:
        return None
    return min(_parse(TIMEOUT_HEADER, text, _to_timeout_ms, repr(text)[:80]), _MAX_TIMEOUT_MS) / 1000


def join_top_k(of_query: int | None, of_form: Sequence[str]) -> int | None:
    """Return the one `top_k` of the query and the form's fields.

    Raises:
        InvalidParameter: A value is no number in range, or two values differ.
    """
    top_k = of_query
    for text in of_form:
        value = _parse(TOP_K, text, _to_top_k, repr(text[:40]))
        if top_k not in (None, value):
            raise _contradiction(TOP_K, str(top_k), text)
        top_k = value
    return top_k


def _parse(name: str, text: str, to_number: Callable[[str], int], shown: str) -> int:
    try:
        return to_number(text)
    except ValidationError as error:
        reason = error.errors(include_url=False)[0]["msg"]
        raise InvalidParameter(f"{name} is {shown}. {reason}.") from None


def _contradiction(parameter: str, first: str, second: str) -> InvalidParameter:
    return InvalidParameter(f"{parameter} is given twice, as {first[:40]!r} and {second[:40]!r}. Give it once.")
