"""`POST /predict`: one image in, its scores out."""

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

from pydantic import TypeAdapter
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from service import errors
from service.api.parameters import join_top_k, read_parameters
from service.api.record import Prediction, RequestRecord, record_of
from service.api.schemas import LabelProbability, ModelVersion, PredictionBody
from service.api.service import service_of
from service.api.upload import read_image
from service.inference.predictor import Classified
from service.ranking import Ranking, check_top_k, rank

PATH = "/predict"
T = TypeVar("T")
_to_json = TypeAdapter(PredictionBody).dump_json


async def predict(request: Request) -> Response:
    """Classify the image that the request carries."""
    service, record = service_of(request), record_of(request.scope)
    parameters = read_parameters(request)
    clock = asyncio.get_running_loop().time
    gives_up_at = None if parameters.timeout_s is None else clock() + parameters.timeout_s
    with service.admission.request() as ticket:
        class_names = service.predictor.require().metadata.class_names
        check_top_k(parameters.top_k, len(class_names))
        try:
            async with asyncio.timeout_at(gives_up_at):
                upload = await read_image(request, ticket, service.upload_limits)
        except TimeoutError:
            raise errors.DeadlineExceeded("The deadline passed while the body arrived. Allow more time.") from None
        top_k = join_top_k(parameters.top_k, upload.top_k)
        check_top_k(top_k, len(class_names))
        # The server's own limit counts from the end of the upload, which has a limit of its own.
        deadline = clock() + service.request_timeout_s
        if gives_up_at is not None:
            deadline = min(deadline, gives_up_at)
        work = service.predictor.classify(upload.image, ticket, deadline)
        del upload  # the predictor lets go of it as soon as it is decoded
        classified = await unless_hung_up(request, work)
    ranking = rank_row(classified, top_k)
    record.predictions.append(Prediction(classified, ranking.scores[0]))
    return _answer(record, classified, ranking)


def rank_row(classified: Classified, top_k: int | None) -> Ranking:
    """Rank the row of one image by the names and the rule of the version that computed it.

    Raises `InvalidParameter` if the version has fewer classes than `top_k`.
    """
    version = classified.version
    return rank(
        classified.probabilities, version.metadata.class_names, top_k, version.confident_rule,
        energy=classified.energy, distance=classified.distance,
    )  # fmt: skip


async def unless_hung_up(request: Request, work: Awaitable[T]) -> T:
    """Return the result of `work`. Cancel it when the client hangs up. The body must have been read.

    Raises:
        ClientDisconnect: The client has hung up.
    """
    working = asyncio.current_task()
    assert working is not None
    is_gone = False

    async def watch() -> None:
        nonlocal is_gone
        while (await request.receive())["type"] != "http.disconnect":
            pass
        is_gone = True
        working.cancel()

    watching = asyncio.create_task(watch())
    try:
        return await work
    except asyncio.CancelledError:
        if is_gone and not working.uncancel():
            raise ClientDisconnect from None
        raise
    finally:
        watching.cancel()


def _answer(record: RequestRecord, classified: Classified, ranking: Ranking) -> Response:
    best = ranking.scores[0]
    body = PredictionBody(
        request_id=record.request_id,
        model=ModelVersion(name=classified.version.model, version=classified.version.version),
        label=best.label,
        probability=best.probability,
        confident=ranking.confident,
        reason=ranking.reason,
        predictions=[LabelProbability(score.label, score.probability) for score in ranking.scores],
    )
    return Response(_to_json(body), media_type="application/json", headers=record.server_timing())


routes = [Route(PATH, predict, methods=["POST"])]
"""Plain routes. FastAPI's own way to a handler costs the event loop more time than reading the body does."""
