"""Request with images -> their rankings. Every route that answers all images or none takes this way."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

from starlette.requests import ClientDisconnect, Request

from service import errors
from service.api.parameters import join_top_k, read_parameters
from service.api.record import Prediction, record_of
from service.api.schemas import ImageScores, LabelProbability
from service.api.service import Service, service_of
from service.imaging.pixels import Pixels
from service.inference.admission import Ticket
from service.inference.predictor import Classified
from service.ranking import Ranking, check_top_k, rank

T = TypeVar("T")
_AT_A_TIME = 4  # images of one request in the queue, so that its neighbours do not wait for all of them


@dataclass(frozen=True)
class Asked:
    """Content of a body: image files or squares of the model's size, and the values of `top_k` as they were sent."""

    images: list[bytes | Pixels]
    top_k: tuple[str, ...] = ()


@dataclass(frozen=True)
class Ranked:
    """Row of one image, and its ranking."""

    classified: Classified
    ranking: Ranking


async def classify_request(request: Request, read: Callable[[Ticket], Awaitable[Asked]]) -> list[Ranked]:
    """Read a request and classify its images, in order, by one version. They share micro-batches.

    Args:
        request: Its query and its headers hold parameters, too.
        read: Reads the body, and counts it on the ticket. There is no other hold on the images that it returns.

    Raises:
        InvalidParameter: A parameter is unknown, out of range, or given twice.
        NotReady, Draining, QueueFull, DeadlineExceeded, ImageError, EngineFailed, OutOfMemory: As `classify` of the
            predictor, for the first image that fails. Further errors are those of `read`.
    """
    service, record = service_of(request), record_of(request.scope)
    parameters = read_parameters(request)
    clock = asyncio.get_running_loop().time
    gives_up_at = None if parameters.timeout_s is None else clock() + parameters.timeout_s
    with service.admission.request() as ticket:
        class_names = service.predictor.require().metadata.class_names
        check_top_k(parameters.top_k, len(class_names))
        asked = await read_until(gives_up_at, read(ticket))
        top_k = join_top_k(parameters.top_k, asked.top_k)
        check_top_k(top_k, len(class_names))
        # The server's own limit counts from the end of the upload, which has a limit of its own.
        deadline = clock() + service.request_timeout_s
        if gives_up_at is not None:
            deadline = min(deadline, gives_up_at)
        rows = await unless_hung_up(request, _classify(service, asked.images, ticket, deadline))
    ranked = [Ranked(row, rank_row(row, top_k)) for row in rows]
    record.predictions.extend(Prediction(one.classified, one.ranking.scores[0]) for one in ranked)
    return ranked


def rank_row(classified: Classified, top_k: int | None) -> Ranking:
    """Rank the row of one image by the names and the rule of the version that computed it.

    Raises `InvalidParameter` if the version has fewer classes than `top_k`.
    """
    version = classified.version
    return rank(
        classified.probabilities, version.metadata.class_names, top_k, version.confident_rule,
        energy=classified.energy, distance=classified.distance,
    )  # fmt: skip


def write_scores(ranking: Ranking, version: int | None = None) -> ImageScores:
    """Return the answer for one image of several. `version` is the one that scored it, where that has to be said."""
    best = ranking.scores[0]
    return ImageScores(
        label=best.label,
        probability=best.probability,
        confident=ranking.confident,
        reason=ranking.reason,
        predictions=[LabelProbability(score.label, score.probability) for score in ranking.scores],
        version=version,
    )


async def read_until(gives_up_at: float | None, reading: Awaitable[T]) -> T:
    """Return what `reading` reads of a body. Raises `DeadlineExceeded` at `gives_up_at`, event loop time in seconds."""
    try:
        async with asyncio.timeout_at(gives_up_at):
            return await reading
    except TimeoutError:
        raise errors.DeadlineExceeded("The deadline passed while the body arrived. Allow more time.") from None


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


async def _classify(
    service: Service, images: list[bytes | Pixels], ticket: Ticket, deadline: float
) -> list[Classified]:
    """Classify images by one version and empty their list. The predictor lets go of each as soon as it is decoded."""
    if len(images) == 1:  # without the time of a task
        return [await service.predictor.classify(images.pop(), ticket, deadline)]
    numbered = deque(enumerate(images))
    images.clear()
    rows: dict[int, Classified] = {}
    version = service.predictor.require()

    async def take_turns() -> None:
        while numbered:
            place, image = numbered.popleft()
            work = service.predictor.classify(image, ticket, deadline, version=version)
            del image
            rows[place] = await work

    with version.in_use():
        tasks = [asyncio.create_task(take_turns()) for _ in range(min(_AT_A_TIME, len(numbered)))]
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)  # the ticket must outlive them
    return [rows[place] for place in sorted(rows)]
