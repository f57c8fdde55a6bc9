"""What is wrong with an answer of `POST /predict`, as a kind that can be counted."""

import json
from typing import Any

from service.bench.connection import Response

_PROBLEM = "application/problem+json"


def find_error(response: Response) -> str:
    """Why nothing came, a problem type such as /problems/overloaded, or a status; nothing for a prediction."""
    if response.failure:
        return response.failure
    if response.status == 200:
        return "" if b'"label"' in response.body else "not a prediction"
    return str(read_problem(response).get("type", f"status {response.status}"))


def read_problem(response: Response) -> dict[str, Any]:
    """The problem document (RFC 9457) that the answer is; empty for any other answer."""
    if response.media_type != _PROBLEM:
        return {}
    try:
        problem = json.loads(response.body)
    except ValueError:
        return {}
    return problem if isinstance(problem, dict) else {}
