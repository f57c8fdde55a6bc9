"""Kinds of wrong answers of `POST /predict`."""

import json
from typing import Any

from service.bench.connection import Response

_PROBLEM = "application/problem+json"


def find_error(response: Response) -> str:
    """Return a failure, a problem type such as /problems/overloaded, or a status. It is empty for a prediction."""
    if response.failure:
        return response.failure
    if response.status == 200:
        return "" if b'"label"' in response.body else "not a prediction"
    return str(read_problem(response).get("type", f"status {response.status}"))


def read_problem(response: Response) -> dict[str, Any]:
    """Return the problem document (RFC 9457) of an answer. It is empty for any other answer."""
    if response.media_type != _PROBLEM:
        return {}
    try:
        problem = json.loads(response.body)
    except ValueError:
        return {}
    return problem if isinstance(problem, dict) else {}
