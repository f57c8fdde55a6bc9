"""Several times of one experiment come to one result, which hides no failure."""

from pathlib import Path

import pytest
from starlette.routing import Match, Route
from support.fakes import Loader
from support.running import running

from benchmarks.reliability.__main__ import median_of
from benchmarks.reliability.damage import VERTEX, Asking, make_requests
from benchmarks.reliability.fuzz import make_damaged
from benchmarks.reliability.replica import Result


def measured(ratio: float, num_wrong: int) -> Result:
    result = Result(figures={"ratio": ratio})
    result.at_most(2, "p99 / p99 without", ratio)
    result.at_most(0, "wrong answers", num_wrong)
    return result


@pytest.mark.parametrize(("ratios", "is_kept"), [((1.0, 9.0, 1.9), True), ((2.1, 1.0, 2.2), False)])
def test_a_promise_has_its_median(ratios: tuple[float, ...], is_kept: bool) -> None:
    result = median_of([measured(ratio, 0) for ratio in ratios])
    assert (result.promises[0].measured, result.promises[0].is_kept) == (sorted(ratios)[1], is_kept)
    assert [one["figures"]["ratio"] for one in result.figures["times"]] == list(ratios)


def test_what_may_never_happen_has_its_worst() -> None:
    result = median_of([measured(1.0, number) for number in (0, 3, 0)])
    assert (result.promises[1].measured, result.promises[1].is_kept) == (3, False)


@pytest.mark.anyio
async def test_the_fuzz_asks_every_route(store: Path, loader: Loader) -> None:
    async with running(store, loader, vertex_predict_route=VERTEX) as service:
        openapi = (await service.client.get("/openapi.json")).json()
    whole = make_requests("flowers", 1)
    for path, operations in openapi["paths"].items():
        for method in operations:
            route = Route(path, lambda _: None, methods=[method.upper()])
            assert any(is_for(asking, route) for asking in whole), f"{method} {path}"


def is_for(asking: Asking, route: Route) -> bool:
    path = asking.target.decode().partition("?")[0]
    return route.matches({"type": "http", "method": asking.method, "path": path})[0] is Match.FULL


def test_a_damaged_request_is_made_again_by_its_number() -> None:
    whole = make_requests("flowers", 1)
    assert [make_damaged(number, whole) for number in range(50)] == [make_damaged(n, whole) for n in range(50)]
    assert len({make_damaged(number, whole).write() for number in range(50)}) > 40
