"""Damaged requests to every route, for ten minutes. None is a 500, no worker ends, and memory stays.

For an hour: `python -m benchmarks.reliability fuzz --scale 6`. A failure names the number of its request, and
`make_damaged` makes that request again.
"""

import json
import random
import socket
import threading
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from http.client import HTTPException, HTTPResponse
from itertools import count

from benchmarks.reliability.damage import VERTEX, Asking, damage, make_requests
from benchmarks.reliability.replica import MODEL, Replica, Result, replica, store_of_its_own

DURATION_S = 600.0
NUM_CLIENTS = 6
SHARE_WHOLE = 0.1  # of the requests
BODY_TIMEOUT_S = 1.0  # a body that is cut short ends there
LONGEST_S = 60.0  # explanations give way to predictions for up to 30 s
_SHOWN = 20
_FLAGS = ("--workers", "2", "--vertex-predict-route", VERTEX, "--body-timeout-s", str(BODY_TIMEOUT_S))


@dataclass
class Seen:
    """What the clients have met.

    Attributes:
        statuses: Number of answers of each status.
        failures: Descriptions of answers that break a promise, by kind.
        slowest_s: The longest time to an answer.
    """

    statuses: Counter[int] = field(default_factory=Counter)
    failures: dict[str, list[str]] = field(default_factory=dict)
    slowest_s: float = 0.0

    def fail(self, kind: str, description: str) -> None:
        """Keep a failure."""
        self.failures.setdefault(kind, []).append(description)

    def num_failures(self, kind: str) -> int:
        """Return how often a promise was broken."""
        return len(self.failures.get(kind, []))


def measure(scale: float, engine: str) -> Result:
    """Ask until the time is up. The state after the first tenth is the warm one."""
    result, seen, numbers = Result(), Seen(), count()
    with store_of_its_own() as store, replica(store, "--engine", engine, *_FLAGS) as service:
        whole = make_requests(MODEL, service.live_version())
        for asking in whole:
            _check(seen, -1, asking, _ask(service.port, asking), is_whole=True)
        begun = time.monotonic()
        ends_at = begun + DURATION_S * scale

        def work() -> None:
            while time.monotonic() < ends_at:
                number = next(numbers)
                asking = make_damaged(number, whole)
                _check(seen, number, asking, _ask(service.port, asking), is_whole=False)

        clients = [threading.Thread(target=work) for _ in range(NUM_CLIENTS)]
        for client in clients:
            client.start()
        held = _watch(service, begun, ends_at)
        for client in clients:
            client.join()
        for asking in whole:
            _check(seen, -1, asking, _ask(service.port, asking), is_whole=True)
        time.sleep(BODY_TIMEOUT_S)
        held.append(_weigh(service, begun))
        num_ended = len(service.events("worker ended"))
        causes = [event.get("exc_info") or event for event in service.events("request failed")]
    warm = next(state for state in held if state["after_s"] >= DURATION_S * scale / 10)
    result.figures = {
        "requests": next(numbers),
        "statuses": dict(sorted(seen.statuses.items())),
        "slowest_s": round(seen.slowest_s, 2),
        "failures": {kind: some[:_SHOWN] for kind, some in seen.failures.items()},
        "causes": causes[:_SHOWN],
        "held": held,
    }
    result.at_most(0, "answers with 500", seen.statuses[500])
    result.at_most(0, "requests without an answer", seen.num_failures("no answer"))
    result.at_most(0, "problems in another form", seen.num_failures("other form"))
    result.at_most(0, "whole requests that were refused", seen.num_failures("refused"))
    result.at_most(0, "workers that ended", num_ended)
    result.at_most(100, "MB more than when warm", held[-1]["resident_mb"] - warm["resident_mb"])
    result.at_most(20, "file descriptors more", held[-1]["files"] - warm["files"])
    result.at_most(20, "threads more", held[-1]["threads"] - warm["threads"])
    return result


def make_damaged(number: int, whole: list[Asking]) -> Asking:
    """Return the request of this number. One of ten is whole."""
    source = random.Random(number)  # noqa: S311 - it shall be the same again
    asking = source.choice(whole)
    return asking if source.random() < SHARE_WHOLE else damage(asking, whole, source)


@dataclass(frozen=True)
class Answer:
    """Answer to one request. The status 0 means that there was none."""

    status: int
    media_type: str
    body: bytes
    duration_s: float


def _ask(port: int, asking: Asking) -> Answer:
    begun = time.monotonic()
    status, media_type, body = 0, "", b""
    with socket.create_connection(("127.0.0.1", port), timeout=LONGEST_S) as wire:
        with suppress(BrokenPipeError, ConnectionResetError):  # the answer may be there nevertheless
            wire.sendall(asking.write())
        try:
            response = HTTPResponse(wire, method=asking.method)
            response.begin()
            status, media_type = response.status, response.headers.get("Content-Type", "")
            body = response.read()
        except (HTTPException, OSError) as error:
            status, body = 0, repr(error).encode()
    return Answer(status, media_type, body, time.monotonic() - begun)


def _check(seen: Seen, number: int, asking: Asking, answer: Answer, *, is_whole: bool) -> None:
    seen.statuses[answer.status] += 1
    seen.slowest_s = max(seen.slowest_s, answer.duration_s)
    said = f"{number} {asking.method} {asking.target[:80]!r} {answer.status} {answer.body[:200]!r}"
    if answer.status == 0:
        seen.fail("no answer", said)
    elif answer.status >= 400 and asking.method != "HEAD" and not _is_problem(answer):
        seen.fail("other form", said)
    if answer.status == 500:
        seen.fail("500", said)
    if is_whole and answer.status != 200:
        seen.fail("refused", said)


def _is_problem(answer: Answer) -> bool:
    try:
        document = json.loads(answer.body)
    except ValueError:
        return False
    if answer.media_type == "application/problem+json":
        return set(document) == {"type", "title", "status", "detail", "request_id"}
    return answer.media_type == "application/json" and set(document) == {"error"}


def _watch(service: Replica, begun: float, ends_at: float) -> list[dict[str, float]]:
    """Weigh the service sixty times until the end."""
    held = []
    step_s = (ends_at - begun) / 60
    for number in range(60):
        time.sleep(max(0.0, begun + step_s * (number + 1) - time.monotonic()))
        held.append(_weigh(service, begun))
    return held


def _weigh(service: Replica, begun: float) -> dict[str, float]:
    return {
        "after_s": round(time.monotonic() - begun, 1),
        "resident_mb": round(service.resident_mb(), 1),
        "files": service.num_files(),
        "threads": service.num_threads(),
    }
