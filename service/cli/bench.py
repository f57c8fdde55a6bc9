"""`flowers bench URL`: measure a running service under load."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, TypeVar

from cyclopts import Parameter
from rich.console import Group
from rich.table import Table
from rich.text import Text

from service.bench.connection import Target, find_error, parse_target
from service.bench.generator import Load, Question, ask_once, load_target, run
from service.bench.photographs import as_form, read_photographs
from service.bench.summary import PERCENTILES, Summary, summarise
from service.cli.headers import HeaderLines, check_headers
from service.cli.terminal import print_result, progress_bar
from service.errors import InvalidParameter, ServiceError
from service.files import IMAGE_SUFFIXES
from service.http_client import PREDICT

_Number = TypeVar("_Number", int, float)
_CLOSED_LOOP, _OPEN_LOOP = "1,8,32", "512"  # connections
_MAX_CONNECTIONS, _MAX_RATE = 10_000, 100_000


def bench(
    url: str,
    *,
    connections: str | None = None,
    rate: str | None = None,
    duration_s: float = 10.0,
    warm_up_s: float = 2.0,
    timeout_s: float = 30.0,
    image: Path | None = None,
    header: HeaderLines = (),
    as_json: Annotated[bool, Parameter(name="--json", negative="")] = False,
) -> int:
    """Measure throughput, latency and errors of a running service under load.

    Without --rate, each connection sends a request as soon as the last one is answered (a closed loop). With --rate,
    requests begin at equal intervals, and a latency counts from when its request was due.

    Args:
        url: Address of the service, such as http://localhost:8000.
        connections: Numbers of connections, one measurement each. The default is 1,8,32. With --rate it is the limit
            of open connections, 512 by default.
        rate: Requests per second, such as 20,50,100, one measurement each.
        duration_s: Duration of a measurement, in seconds.
        warm_up_s: Time before it that does not count, in seconds.
        timeout_s: Time after which a request counts as an error, in seconds.
        image: Image file, or a folder of them. Without it a drawn flower is sent.
        header: Line to send with each request, such as "X-Request-Timeout-Ms: 500".
        as_json: Print JSON instead of a table.
    """
    _check_seconds(duration_s=duration_s, warm_up_s=warm_up_s, timeout_s=timeout_s)
    check_headers(header)
    rates = _parse_list("--rate", rate, float, _MAX_RATE) if rate else [None]
    counts = _parse_list("--connections", connections or (_OPEN_LOOP if rate else _CLOSED_LOOP), int, _MAX_CONNECTIONS)
    loads = [Load(count, per_s, warm_up_s, duration_s, timeout_s) for count in counts for per_s in rates]
    target = parse_target(url, PREDICT)
    photographs = read_photographs(image, IMAGE_SUFFIXES)
    requests = [target.post(*as_form(photograph), headers=header) for photograph in photographs]
    _check_answer(url, target, requests[0], timeout_s)

    questions = [Question(request, find_error) for request in requests]
    summaries: list[Summary] = []
    with progress_bar("measuring") as progress:
        for load in loads:
            progress(len(summaries), len(loads))
            summaries.append(summarise(load, run(load_target(target, questions, load))))
    if as_json:
        print(json.dumps({"url": url, "runs": [summary.to_json() for summary in summaries]}, indent=2))
    else:
        _print_tables(summaries)
    return 0 if any(summary.num_answers for summary in summaries) else 1


def _check_answer(url: str, target: Target, request: bytes, timeout_s: float) -> None:
    """Send one request first, to refuse a wrong address, or a service that is not ready."""
    response = run(ask_once(target, request, timeout_s))
    if response.failure:
        raise ServiceError(f"No service answers at {url} ({response.failure}). Start one with `flowers serve`.")
    if error := find_error(response):
        detail = response.read_problem().get("detail", "Give the address of a service.")
        raise ServiceError(f"{url} does not answer with a prediction ({error}). {detail}")


def _check_seconds(**flags: float) -> None:
    for name, seconds in flags.items():
        least = 0.0 if name == "warm_up_s" else 0.1
        if not least <= seconds <= 3600:
            raise InvalidParameter(f"--{name.replace('_', '-')} is {seconds:g}. Give {least:g} to 3600 seconds.")


def _parse_list(flag: str, text: str, number: Callable[[str], _Number], most: int) -> list[_Number]:
    try:
        values = [number(item) for item in text.split(",")]
    except ValueError:
        values = []
    if not values or not all(0 < value <= most for value in values):
        raise InvalidParameter(f"{flag} is {text!r}. Give numbers above 0 and up to {most:,}, such as 1,8,32.")
    return values


def _print_tables(summaries: list[Summary]) -> None:
    names = [*(f"p{percent}" for percent in PERCENTILES), "max"]
    table = Table("load", "answers", "per second", *(f"{name} ms" for name in names), "errors")
    for summary in summaries:
        load = f"{summary.rate:g} a second" if summary.rate else f"connections: {summary.connections}"
        latencies = [f"{summary.latency_ms[name]:.1f}" if summary.latency_ms else "-" for name in names]
        figures = (str(summary.num_answers), f"{summary.answers_per_s:.1f}", *latencies, str(summary.num_errors))
        table.add_row(load, *figures)
    errors = Table("error", "count")
    for kind in sorted({kind for summary in summaries for kind in summary.errors}):
        errors.add_row(Text(kind), str(sum(summary.errors.get(kind, 0) for summary in summaries)))
    print_result(Group(table, errors) if errors.row_count else table)
