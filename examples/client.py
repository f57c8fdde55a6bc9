"""Client of the service, with httpx.

`python examples/client.py PHOTOGRAPH...` prints the class of each photograph. `SERVICE_URL` names the service.
`SERVICE_KEY` holds an API key.
"""

import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import httpx

_NUM_TRIES = 5
_BUSY = (429, 503)


@dataclass(frozen=True)
class Answer:
    """Best class of a photograph. `probability` is in [0, 1].

    `doubt` tells why the service is not confident, such as `unlike-training`. None means that it is.
    """

    label: str
    probability: float
    doubt: str | None


class ServiceProblem(Exception):
    """Refusal by the service. `kind` never varies for one kind of problem, such as `invalid-image`."""

    def __init__(self, kind: str, detail: str) -> None:
        super().__init__(detail)
        self.kind = kind


def classify(client: httpx.Client, photograph: bytes) -> Answer:
    """Classify one photograph. Wait and try again while the service is busy.

    Raises:
        ServiceProblem: The service refused the photograph, or stayed busy.
        httpx.HTTPError: The service did not answer.
    """
    for num_left in reversed(range(_NUM_TRIES)):
        response = client.post("/predict", params={"top_k": 1}, files={"file": ("photograph", photograph)})
        if response.status_code not in _BUSY or num_left == 0:
            break
        time.sleep(float(response.headers.get("Retry-After", "1")))
    if not response.is_success:
        problem = response.json()
        raise ServiceProblem(problem["type"].removeprefix("/problems/"), problem["detail"])
    answer = response.json()
    return Answer(answer["label"], answer["probability"], answer.get("reason"))


def main() -> int:
    """Print one line for each photograph. Return 1 if the service refused one."""
    exit_code = 0
    key = os.environ.get("SERVICE_KEY")
    headers = {"X-API-Key": key} if key else {}
    url = os.environ.get("SERVICE_URL", "http://127.0.0.1:8000")
    # One client keeps its connections open between requests.
    with httpx.Client(base_url=url, headers=headers, timeout=60) as client:
        for path in map(Path, sys.argv[1:]):
            try:
                answer = classify(client, path.read_bytes())
            except ServiceProblem as problem:
                print(f"{path}: {problem.kind}. {problem}", file=sys.stderr)
                exit_code = 1
            else:
                doubt = f", {answer.doubt}" if answer.doubt else ""
                print(f"{path}: {answer.label} ({answer.probability:.1%}{doubt})")
    return exit_code


if __name__ == "__main__":
    sys.exit(main())
