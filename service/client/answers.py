"""Answers of the service: predictions, problems, and the statuses that are worth another try."""

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from service.errors import ClientError, ForeignAnswer, ProblemDocument, RefusedByService
from service.ranking import Score

_OK = 200
_BUSY = (429, 503)
_OF_PROXIES = (502, 504)  # the service itself has no 502, and its 504 means that the client's own time is over
_PROBLEM_TYPES = "/problems/"


@dataclass(frozen=True)
class Prediction:
    """Scores of one image.

    Attributes:
        request_id: The id of the request, as in the service's log.
        model: Name of the model.
        version: Version of the model.
        label: The best class.
        probability: Its probability, 0 to 1.
        confident: Whether the best class passes every limit of the version.
        reason: Why the answer is not confident, such as "unlike-training". None if it is, or if an older service does
            not tell.
        predictions: All classes, or `top_k` of them, best first.
    """

    request_id: str
    model: str
    version: int
    label: str
    probability: float
    confident: bool
    reason: str | None
    predictions: tuple[Score, ...]


@dataclass(frozen=True)
class Answer:
    """A whole answer. `retry_after` is the value of its header, or None without one."""

    status: int
    body: bytes
    retry_after: str | None = None

    def read_prediction(self) -> Prediction:
        """Return the prediction. Raises `RefusedByService` for a problem, and `ForeignAnswer` for anything else."""
        try:
            document = json.loads(self.body)
            if self.status == _OK:
                return _read_prediction(document)
            problem = _read_problem(document)
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise ForeignAnswer(f"The answer ({self.status}) is not of this service. Check the URL.") from error
        raise RefusedByService(problem)

    def is_worth_retrying(self, error: ClientError) -> bool:
        """Return whether the same request may succeed later, after `read_prediction` raised `error`."""
        return self.status in _BUSY or (self.status in _OF_PROXIES and isinstance(error, ForeignAnswer))

    def retry_after_s(self) -> float:
        """Return the seconds of Retry-After, which is a number or a date. Without a valid one it is 0."""
        text = (self.retry_after or "").strip()
        if text.isascii() and text.isdigit():
            return float(text)
        try:
            return max(0.0, (parsedate_to_datetime(text) - datetime.now(UTC)).total_seconds())
        except (ValueError, TypeError):
            return 0.0


def _read_prediction(document: Any) -> Prediction:
    scores = tuple(Score(str(entry["label"]), float(entry["probability"])) for entry in document["predictions"])
    if not scores or not all(0 <= score.probability <= 1 for score in scores):
        raise ValueError("no probabilities")
    reason = document.get("reason")
    return Prediction(
        request_id=str(document["request_id"]),
        model=str(document["model"]["name"]),
        version=int(document["model"]["version"]),
        label=str(document["label"]),
        probability=float(document["probability"]),
        confident=bool(document["confident"]),
        reason=None if reason is None else str(reason),
        predictions=scores,
    )


def _read_problem(document: Any) -> ProblemDocument:
    names = ("type", "title", "detail", "request_id")
    type_, title, detail, request_id = (str(document[name]) for name in names)
    if not type_.startswith(_PROBLEM_TYPES):
        raise ValueError("no problem of the service")
    return ProblemDocument(type_, title, int(document["status"]), detail, request_id)
