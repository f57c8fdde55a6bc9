"""Parameters of a prediction: values that are taken, and the words of each refusal."""

from typing import Any

import pytest
from starlette.requests import Request

from service.api.parameters import Parameters, join_top_k, read_explanation_parameters, read_parameters
from service.errors import InvalidParameter

NO_INTEGER = "Input should be a valid integer, unable to parse string as an integer."
TOO_SMALL = "Input should be greater than or equal to 1."
TOO_LARGE = "Input should be less than or equal to 100000."
TOO_LONG = "Unable to parse input string as an integer, exceeded maximum size."
UNKNOWN = "is no parameter of /predict. The nearest is 'top_k'. Write that, or leave it out."


def read(query: bytes = b"", *timeouts: bytes) -> Parameters:
    headers = [(b"x-request-timeout-ms", timeout) for timeout in timeouts]
    scope: dict[str, Any] = {"type": "http", "path": "/predict", "query_string": query, "headers": headers}
    return read_parameters(Request(scope))


@pytest.mark.parametrize(
    ("query", "top_k"),
    [
        (b"", None), (b"&&", None), (b"top_k=2", 2), (b"top_k=2&", 2), (b"top_k=2&top_k=2", 2), (b"top_k=02", 2),
        (b"top_k=%202%20", 2), (b"top_k=+2", 2), (b"top_k=%2B2", 2), (b"top_k=1.0", 1), (b"top_k=2_0", 20),
        (b"top_k=100000", 100_000),
    ],
)  # fmt: skip
def test_a_number_may_be_written_in_several_ways(query: bytes, top_k: int | None) -> None:
    assert read(query) == Parameters(top_k, None)


@pytest.mark.parametrize(
    ("query", "detail"),
    [
        (b"top_k=0", f"top_k is '0'. {TOO_SMALL}"),
        (b"top_k=-1", f"top_k is '-1'. {TOO_SMALL}"),
        (b"top_k=100001", f"top_k is '100001'. {TOO_LARGE}"),
        (b"top_k=many", f"top_k is 'many'. {NO_INTEGER}"),
        (b"top_k", f"top_k is ''. {NO_INTEGER}"),
        (b"top_k=1.5", f"top_k is '1.5'. {NO_INTEGER}"),
        (b"top_k=2%00", f"top_k is '2\\x00'. {NO_INTEGER}"),
        (b"top_k=%E9", f"top_k is '\ufffd'. {NO_INTEGER}"),
        (b"top_k=" + b"9" * 5000, f"top_k is '{'9' * 79}. {TOO_LONG}"),
        (b"top_k=" + b"x" * 20_000, f"top_k is '{'x' * 79}. {NO_INTEGER}"),
        (b"top_k=2&top_k=3", "top_k is given twice, as '2' and '3'. Give it once."),
        (b"top_k=2&top_k=2.0", "top_k is given twice, as '2' and '2.0'. Give it once."),
        (b"topk=2", f"'topk' {UNKNOWN}"),
        (b"=", f"'' {UNKNOWN}"),
        (b"x=1&top_k=0", f"'x' {UNKNOWN}"),
        (b"a" * 300 + b"=1", f"'{'a' * 40}' {UNKNOWN}"),
    ],
)
def test_a_wrong_query_is_refused_in_few_words(query: bytes, detail: str) -> None:
    with pytest.raises(InvalidParameter) as refused:
        read(query)
    assert str(refused.value) == detail


@pytest.mark.parametrize(
    ("timeout", "timeout_s"), [(b"1", 0.001), (b"9000", 9.0), (b"09000", 9.0), (b"9" * 400, 1_000_000.0)]
)
def test_a_timeout_is_in_milliseconds(timeout: bytes, timeout_s: float) -> None:
    assert read(b"", timeout).timeout_s == timeout_s
    assert read(b"", timeout, b"soon").timeout_s == timeout_s, "the first one counts"


@pytest.mark.parametrize(
    ("timeout", "reason"), [(b"0", TOO_SMALL), (b"", NO_INTEGER), (b"soon", NO_INTEGER), (b"\xe9", NO_INTEGER)]
)
def test_a_wrong_timeout_is_refused(timeout: bytes, reason: str) -> None:
    with pytest.raises(InvalidParameter) as refused:
        read(b"top_k=2", timeout)
    assert str(refused.value) == f"x-request-timeout-ms is {timeout.decode('latin-1')!r}. {reason}"


def test_the_query_is_judged_before_the_timeout() -> None:
    with pytest.raises(InvalidParameter, match="top_k is '0'"):
        read(b"top_k=0", b"0")


def test_query_and_form_may_agree() -> None:
    assert join_top_k(None, []) is None
    assert join_top_k(3, []) == 3
    assert join_top_k(None, ["2", " 2"]) == 2
    assert join_top_k(2, ["2.0"]) == 2


@pytest.mark.parametrize(
    ("of_query", "of_form", "detail"),
    [
        (3, ["2"], "top_k is given twice, as '3' and '2'. Give it once."),
        (None, ["2", "3"], "top_k is given twice, as '2' and '3'. Give it once."),
        (None, ["0"], f"top_k is '0'. {TOO_SMALL}"),
        (None, ["many" * 16], f"top_k is '{'many' * 10}'. {NO_INTEGER}"),
        (None, ["9" * 64], f"top_k is '{'9' * 40}'. {TOO_LARGE}"),
    ],
)
def test_a_wrong_field_is_refused(of_query: int | None, of_form: list[str], detail: str) -> None:
    with pytest.raises(InvalidParameter) as refused:
        join_top_k(of_query, of_form)
    assert str(refused.value) == detail


@pytest.mark.parametrize(
    ("query", "label"),
    [
        (b"", None), (b"label=roses", "roses"), (b"label=", ""), (b"label=%E9%9B%9B+a", "\u96db a"),
        ("label=G\u00e4nse".encode(), "G\u00e4nse"), (b"label=%FF", "\ufffd"),
    ],
)  # fmt: skip
def test_a_label_is_read_as_utf_8(query: bytes, label: str | None) -> None:
    scope: dict[str, Any] = {"type": "http", "path": "/explain", "query_string": query, "headers": []}
    assert read_explanation_parameters(Request(scope)).label == label
