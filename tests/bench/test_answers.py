import pytest

from service.bench.answers import find_error, read_problem
from service.bench.connection import Response

PROBLEM = "application/problem+json"


@pytest.mark.parametrize(
    ("response", "error"),
    [
        (Response(200, "application/json", b'{"label": "roses"}'), ""),
        (Response(200, "text/html", b"<html>"), "not a prediction"),
        (Response(503, PROBLEM, b'{"type": "/problems/draining"}'), "/problems/draining"),
        (Response(502, "text/html", b"<html>"), "status 502"),
        (Response(500, PROBLEM, b"no JSON"), "status 500"),
        (Response(500, PROBLEM, b"[]"), "status 500"),
        (Response(failure="timeout"), "timeout"),
    ],
)
def test_an_answer_that_is_no_prediction_has_a_kind(response: Response, error: str) -> None:
    assert find_error(response) == error


def test_a_problem_keeps_its_detail() -> None:
    assert read_problem(Response(429, PROBLEM, b'{"detail": "wait"}')) == {"detail": "wait"}
