"""`POST /predict/batch`: many images in, an answer for each."""

import asyncio
from collections.abc import Sequence
from contextlib import aclosing

from pydantic import TypeAdapter
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from service.api.batch_upload import BatchUpload, Part
from service.api.classification import rank_row, unless_hung_up, write_scores
from service.api.parameters import join_top_k, read_parameters
from service.api.problems import Occurrence, describe
from service.api.record import Prediction, RequestRecord, record_of
from service.api.schemas import BatchBody, ImageProblem, ImageScores, ModelVersion
from service.api.service import Service, service_of
from service.engines.open_version import ServedVersion
from service.errors import DeadlineExceeded
from service.inference.admission import Ticket
from service.inference.predictor import Classified
from service.inference.share import Share
from service.ranking import check_top_k

PATH = "/predict/batch"
_to_json = TypeAdapter(BatchBody).dump_json


async def predict_batch(request: Request) -> Response:
    """Classify each image of a form. An image that cannot be answered spoils only its own place."""
    service, record = service_of(request), record_of(request.scope)
    parameters = read_parameters(request)
    gives_up_at = None
    if parameters.timeout_s is not None:
        gives_up_at = asyncio.get_running_loop().time() + parameters.timeout_s
    with service.admission.request() as ticket:
        live = service.predictor.require()
        num_classes = len(live.metadata.class_names)
        check_top_k(parameters.top_k, num_classes)
        upload = BatchUpload(request, ticket, service.batch_limits, gives_up_at)
        outcomes = await _Scoring(service, ticket, record.request_id, gives_up_at).run(request, upload)
    top_k = join_top_k(parameters.top_k, upload.top_k)
    check_top_k(top_k, num_classes)
    return await _answer(record, live, outcomes, top_k)


class _Scoring:
    """Scoring of one batch. What it returns for an image has neither its bytes nor its pixels."""

    def __init__(self, service: Service, ticket: Ticket, request_id: str, gives_up_at: float | None) -> None:
        self._service = service
        self._ticket = ticket
        self._request_id = request_id
        self._gives_up_at = gives_up_at
        # The lane of one of several workers is one thread. A lone batch would leave the other cores idle.
        self._decodes_ahead = bool(service.admission.shared.others)

    async def run(self, request: Request, upload: BatchUpload) -> Sequence[Classified | Occurrence]:
        """Read the batch and score it meanwhile. Return an outcome for each image, in order.

        Errors of the whole are those of `BatchUpload.read`. They cancel the scoring, and so does a client that leaves.
        """
        share, tasks = Share(self._ticket, self._service.admission, self._service.request_timeout_s), []
        try:
            async with aclosing(upload.read(share)) as parts:
                async for part in parts:
                    task = asyncio.create_task(self._score(part))
                    share.hold(part.num_bytes, until=task)
                    tasks.append(task)
            return await unless_hung_up(request, asyncio.gather(*tasks))
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)  # the ticket must outlive them

    async def _score(self, part: Part) -> Classified | Occurrence:
        clock = asyncio.get_running_loop().time
        deadline = clock() + self._service.request_timeout_s
        if self._gives_up_at is not None:
            deadline = min(deadline, self._gives_up_at)
        try:
            _check(part, is_late=deadline <= clock())
            upload = await self._service.upload_limits.join(part.pieces, part.num_bytes)
            work = self._service.predictor.classify(
                upload.image, self._ticket, deadline, decodes_ahead=self._decodes_ahead
            )
            del upload  # the predictor lets go of it as soon as it is decoded
            return await work
        except Exception as error:
            return describe(self._request_id, error)


def _check(part: Part, *, is_late: bool) -> None:
    if part.error is not None:
        raise part.error
    if is_late:
        raise DeadlineExceeded("The deadline passed before the image had arrived. Allow more time.")


async def _answer(
    record: RequestRecord, live: ServedVersion, outcomes: Sequence[Classified | Occurrence], top_k: int | None
) -> Response:
    results: list[ImageScores | ImageProblem] = []
    predictions: list[Prediction] = []
    for outcome in outcomes:
        if isinstance(outcome, Occurrence):
            results.append(ImageProblem(outcome.write()))
            continue
        ranking = rank_row(outcome, top_k)
        predictions.append(Prediction(outcome, ranking.scores[0]))
        results.append(write_scores(ranking, None if outcome.version is live else outcome.version.version))
        await asyncio.sleep(0)  # a row may have thousands of classes
    record.num_images, record.predictions = len(outcomes), predictions
    record.problems = [outcome.problem.name for outcome in outcomes if isinstance(outcome, Occurrence)]
    body = BatchBody(request_id=record.request_id, model=ModelVersion(live.model, live.version), results=results)
    return Response(_to_json(body), media_type="application/json", headers=record.server_timing())


routes = [Route(PATH, predict_batch, methods=["POST"])]
"""Plain routes, as those of `/predict`."""
