import json
import pickle
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest
from support.predictions import DOCUMENT, problem_body

from service.client.answers import Answer, Prediction
from service.errors import ClientError, ForeignAnswer, ProblemDocument, RefusedByService
from service.ranking import Score


def answer(**changes: Any) -> Answer:
    return Answer(200, json.dumps(DOCUMENT | changes).encode())


def test_a_prediction_holds_all_that_the_service_says() -> None:
    scores = (Score("roses", 0.9), Score("tulips", 0.1))
    expected = Prediction("0193", "flowers", 3, "roses", 0.9, True, None, scores)
    assert answer().read_prediction() == expected
    unsure = answer(confident=False, reason="unlike-training").read_prediction()
    assert (unsure.confident, unsure.reason) == (False, "unlike-training")


@pytest.mark.parametrize(
    "changes",
    [
        {"predictions": []},
        {"predictions": [{"label": "x", "probability": "much"}]},
        {"predictions": [{"label": "x", "probability": 2}]},
        {"predictions": [{"label": "x", "probability": float("nan")}]},
        {"predictions": 3},
        {"model": None},
        {"model": {"name": "flowers", "version": "new"}},
    ],
)
def test_a_prediction_in_another_form_is_foreign(changes: dict[str, Any]) -> None:
    with pytest.raises(ForeignAnswer, match=r"\(200\) is not of this service"):
        answer(**changes).read_prediction()


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (200, b""),
        (200, b"{}"),
        (200, b"[1]"),
        (200, b"null"),
        (200, b"[" * 100_000),
        (200, b"\xff"),
        (204, b""),
        (301, b""),
        (404, b"<html>"),
        (502, b"<html>Bad gateway</html>"),
        (422, b'{"detail": "of another service"}'),
        (422, problem_body(422, "x").replace(b"/problems/", b"about:")),
    ],
)
def test_what_other_servers_say_is_foreign(status: int, body: bytes) -> None:
    with pytest.raises(ForeignAnswer, match=rf"\({status}\) is not of this service"):
        Answer(status, body).read_prediction()


def test_a_problem_is_raised_with_its_document() -> None:
    with pytest.raises(RefusedByService, match="It is invalid-image") as caught:
        Answer(422, problem_body(422, "invalid-image")).read_prediction()
    expected = ProblemDocument("/problems/invalid-image", "Title", 422, "It is invalid-image.", "0193")
    assert caught.value.problem == expected
    assert pickle.loads(pickle.dumps(caught.value)).problem == expected, "for results of other processes"


@pytest.mark.parametrize(
    ("status", "body", "is_worth_it"),
    [
        (429, problem_body(429, "overloaded"), True),
        (503, problem_body(503, "draining"), True),
        (503, b"<html>", True),
        (429, b"<html>", True),
        (502, b"<html>", True),
        (504, b"<html>", True),
        (504, problem_body(504, "deadline-exceeded"), False),
        (500, problem_body(500, "internal-error"), False),
        (500, b"<html>", False),
        (401, problem_body(401, "unauthorized"), False),
        (408, problem_body(408, "body-too-slow"), False),
        (422, problem_body(422, "invalid-image"), False),
        (301, b"", False),
    ],
)
def test_busy_services_and_failing_proxies_are_worth_retrying(status: int, body: bytes, is_worth_it: bool) -> None:
    said = Answer(status, body)
    with pytest.raises(ClientError) as caught:
        said.read_prediction()
    assert said.is_worth_retrying(caught.value) == is_worth_it


@pytest.mark.parametrize(("text", "seconds"), [("7", 7), (" 0 ", 0), (None, 0), ("soon", 0), ("-3", 0), ("²", 0)])
def test_retry_after_is_a_number_of_seconds(text: str | None, seconds: float) -> None:
    assert Answer(503, b"", text).retry_after_s() == seconds


def test_retry_after_may_be_a_date() -> None:
    now = datetime.now(UTC)
    later = format_datetime(now + timedelta(seconds=100), usegmt=True)
    assert 90 < Answer(503, b"", later).retry_after_s() <= 100
    assert Answer(503, b"", format_datetime(now - timedelta(seconds=100), usegmt=True)).retry_after_s() == 0
