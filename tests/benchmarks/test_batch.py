"""Batches beside single requests: the forms that are sent, and answers that must agree."""

from typing import Any

import pytest

from benchmarks.serving.batch import check, form_of, read
from service.bench.connection import Response


def answer(probability: float) -> dict[str, Any]:
    return {"predictions": [{"label": "roses", "probability": probability}]}


def test_a_form_has_each_photograph() -> None:
    body, content_type = form_of([b"one", b"two"])
    boundary = content_type.partition("boundary=")[2].encode()
    assert body.count(b'name="file"') == 2
    assert body.endswith(b"two\r\n--" + boundary + b"--\r\n")


def test_answers_that_differ_end_the_measurement() -> None:
    check([answer(0.5)], [answer(0.5001)])
    with pytest.raises(SystemExit):
        check([answer(0.5)], [answer(0.6)])
    with pytest.raises(SystemExit, match="It is late"):
        check([answer(0.5)], [{"problem": {"detail": "It is late."}}])


def test_a_refusal_ends_the_measurement() -> None:
    assert read(Response(200, "application/json", b"{}")) == {}
    with pytest.raises(SystemExit, match="timeout"):
        read(Response(failure="timeout"))
