"""Answers of the service, for a scripted one."""

import json
from typing import Any

from support.scripted_server import http

SCORES = [{"label": "roses", "probability": 0.9}, {"label": "tulips", "probability": 0.1}]
DOCUMENT: dict[str, Any] = {
    "request_id": "0193",
    "model": {"name": "flowers", "version": 3},
    "label": "roses",
    "probability": 0.9,
    "confident": True,
    "predictions": SCORES,
}


def prediction(**changes: Any) -> bytes:
    """A whole answer of /predict."""
    return http(body=json.dumps(DOCUMENT | changes).encode())


def problem(status: int, name: str, retry_after: str | None = None) -> bytes:
    """A whole answer with a problem."""
    answer = http(status, problem_body(status, name), "application/problem+json")
    return answer if retry_after is None else answer.replace(b"\r\n", f"\r\nRetry-After: {retry_after}\r\n".encode(), 1)


def problem_body(status: int, name: str) -> bytes:
    """The body of a problem."""
    fields = {"type": f"/problems/{name}", "title": "Title", "status": status, "detail": f"It is {name}."}
    return json.dumps(fields | {"request_id": "0193"}).encode()
