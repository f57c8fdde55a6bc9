"""Micro-batches: callers hand in one image each, and the engine gets all that wait when its lane is free.

Batches are formed on the event loop's thread when an image arrives and when the lane comes free. An idle service adds
no wait, and a busy one fills its batches.

There are no locks. The lane writes `_call_began_at`, and what the event loop reads only afterwards (`pixels`, `make_s`
and `outcome` of its batch). It reads what is the event loop's at once (`done`), perhaps late.
"""

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from service.engines.engine import Engine, Probabilities, Scores, failed_run
from service.engines.open_version import ServedVersion
from service.errors import DeadlineExceeded, Draining, EngineFailed, OutOfMemory, ServiceError
from service.imaging.pixels import Pixels
from service.inference.threads import LANES, compute_threads

_CLOSED = "This replica has shut down. Send the request again."


@dataclass(frozen=True)
class Row:
    """Scores of one image, as of `Scores`, and the seconds that the lane took to make it and to call the engine."""

    probabilities: Probabilities
    energy: float | None
    distance: float | None
    make_s: float
    infer_s: float


@dataclass(eq=False)
class _Waiting:
    image: Pixels | Callable[[], Pixels]
    loaded: ServedVersion
    deadline: float | None
    answer: asyncio.Future[Row]
    has_place: bool = True
    is_computing: bool = False
    pixels: Pixels | None = None
    make_s: float = 0.0
    outcome: Row | Exception | None = None

    def make(self) -> None:
        began_at = time.perf_counter()
        try:
            self.pixels = self.image() if callable(self.image) else self.image
        except Exception as error:
            # Its frames hold the file and its pixels, and this one holds it. Only a collection would free them.
            error.__cause__ = error.__context__ = None
            self.outcome = error.with_traceback(None)
        self.make_s = time.perf_counter() - began_at


class MicroBatcher:
    """A queue in front of the lane, the thread that runs the engine. `Admission` bounds it.

    Args:
        max_batch_size: Most images in one engine call. An engine may want fewer.
        on_batch: Gets the size of each batch when it is done, for the metrics.
        on_computing: Gets `num_computing` each time that it changes. A worker publishes it.

    Attributes:
        num_computing: Images of `submit` in the lane whose callers are still there.
        last_success_at: When an engine call last gave an answer, in event loop time (seconds).
        is_failing: Whether the last engine call to end has raised.
    """

    def __init__(
        self,
        *,
        max_batch_size: int,
        on_batch: Callable[[int], None] = lambda _: None,
        on_computing: Callable[[int], None] = lambda _: None,
    ) -> None:
        self._max_batch_size = max_batch_size
        self._on_batch = on_batch
        self._on_computing = on_computing
        self._waiting: deque[_Waiting] = deque()
        self._background: deque[_Waiting] = deque()
        self._running: asyncio.Task[None] | None = None
        self._lane = compute_threads(1, "lane", LANES)
        self._is_closed = False
        self._call_began_at: float | None = None  # on the event loop's clock. None means that no call runs
        self.num_computing = 0
        self.last_success_at = -math.inf
        self.is_failing = False

    def longest_call_s(self, now: float) -> float:
        """Return the age of the engine call that has not ended, in seconds. 0 means that none runs."""
        began_at = self._call_began_at  # read once, since the call may end meanwhile
        return 0.0 if began_at is None else now - began_at

    async def submit(
        self, image: Pixels | Callable[[], Pixels], loaded: ServedVersion, deadline: float | None = None
    ) -> Row:
        """Score one image in a micro-batch.

        Each caller gets the row of its own image. The image of a caller that is cancelled is not computed.

        Args:
            image: uint8, shape (image_size, image_size, 3), RGB, 0-255, as `resize` returns it. Or a function that
                makes it in the lane's thread, so that images change threads once a batch. Its error is raised here.
            loaded: The version. Images of two versions never share a batch.
            deadline: Event loop time in seconds. Past it the image is dropped.

        Raises:
            DeadlineExceeded: The deadline passed before the batch was formed.
            EngineFailed: The engine call raised. Every image of the batch gets this error.
            OutOfMemory: The engine call found too little memory, or no thread could be had.
            Draining: `close` was called.

        Source: TensorFlow Serving, batching guide. Its batch timeout has no counterpart: the free lane need not wait.
        """
        if self._is_closed:
            raise Draining(_CLOSED)
        loop = asyncio.get_running_loop()
        waiting = _Waiting(image, loaded, deadline, loop.create_future())
        self._waiting.append(waiting)
        self._fill_lane()
        try:
            return await waiting.answer
        except asyncio.CancelledError:
            if waiting in self._waiting:
                self._waiting.remove(waiting)
            self._count_out([waiting])
            raise
        finally:
            del waiting  # it holds the error that is being raised, whose frames hold it

    async def submit_background(
        self, images: Sequence[Callable[[], Pixels]], loaded: ServedVersion, deadline: float
    ) -> list[Row]:
        """Score some images of one caller in a call of their own, once the lane is free and no other image waits.

        They have no place in the queue, so they are not in `num_computing`. Arguments and errors are those of `submit`.
        The images of a caller that is cancelled are not computed.
        """
        if self._is_closed:
            raise Draining(_CLOSED)
        future = asyncio.get_running_loop().create_future
        waiting = [_Waiting(image, loaded, deadline, future(), has_place=False) for image in images]
        self._background.extend(waiting)
        self._fill_lane()
        return await asyncio.gather(*(one.answer for one in waiting))

    def close(self) -> None:
        """Refuse what waits, and whatever comes. A batch in the lane ends by itself."""
        self._is_closed = True
        for queue in (self._waiting, self._background):
            while queue:
                _fail(queue.popleft(), Draining(_CLOSED))
        self._lane.shutdown(wait=False, cancel_futures=True)

    def _fill_lane(self) -> None:
        if self._running is not None:
            return
        if not (batch := self._take_batch(self._waiting) or self._take_batch(self._background)):
            return
        for waiting in batch:
            waiting.is_computing = waiting.has_place
        self._count(sum(waiting.has_place for waiting in batch))
        self._running = asyncio.get_running_loop().create_task(self._run(batch))
        self._running.add_done_callback(self._free_lane)

    def _free_lane(self, _: asyncio.Task[None]) -> None:
        self._running = None
        self._fill_lane()

    def _take_batch(self, queue: deque[_Waiting]) -> list[_Waiting]:
        now = asyncio.get_running_loop().time()
        batch: list[_Waiting] = []
        while queue and len(batch) < self._max_batch_size:
            first = queue[0]
            if batch and (first.loaded is not batch[0].loaded or len(batch) == first.loaded.engine.max_batch_size):
                break
            queue.popleft()
            if first.deadline is not None and first.deadline <= now:
                _fail(first, DeadlineExceeded("The deadline passed while the image waited. Allow more time."))
            elif not first.answer.done():  # else its caller was cancelled and has not yet taken it out
                batch.append(first)
        return batch

    def _count_out(self, leaving: list[_Waiting]) -> None:
        num_computing = sum(waiting.is_computing for waiting in leaving)
        for waiting in leaving:
            waiting.is_computing = False
        if num_computing:
            self._count(-num_computing)

    def _count(self, num_more: int) -> None:
        self.num_computing += num_more
        self._on_computing(self.num_computing)

    async def _run(self, batch: list[_Waiting]) -> None:
        loop = asyncio.get_running_loop()
        num_computed = 0
        try:
            with batch[0].loaded.in_use():
                num_computed = await loop.run_in_executor(self._lane, self._compute, batch)
        except BaseException as error:  # no thread could be had, or the engine has raised what ends a thread
            for waiting in batch:
                waiting.outcome = Draining(_CLOSED) if self._is_closed else _failure(len(batch), error)
            if not isinstance(error, Exception):
                raise
        finally:
            self._count_out(batch)
            for waiting in batch:
                self._settle(waiting, loop.time())
        if num_computed:
            self._on_batch(num_computed)

    def _settle(self, waiting: _Waiting, now: float) -> None:
        outcome, waiting.outcome = waiting.outcome, None
        if isinstance(outcome, Row):
            self.is_failing, self.last_success_at = False, now
            if not waiting.answer.done():
                waiting.answer.set_result(outcome)
        elif outcome is not None:
            self.is_failing = self.is_failing or isinstance(outcome, EngineFailed | OutOfMemory)
            _fail(waiting, outcome)

    def _compute(self, batch: list[_Waiting]) -> int:
        """Give an outcome to each image whose caller has not left, in the lane's thread, and count the images."""
        for waiting in batch:
            if not waiting.answer.done():
                waiting.make()
        made = {one: one.pixels for one in batch if one.pixels is not None and not one.answer.done()}
        if not made:
            return 0
        began_at = time.perf_counter()
        try:
            scores = self._call(batch[0].loaded.engine, np.stack(list(made.values())))
        except Exception as error:
            for waiting in made:
                waiting.outcome = _failure(len(made), error)
        else:
            infer_s = time.perf_counter() - began_at
            for waiting, row in zip(made, scores.rows(), strict=True):
                waiting.outcome = Row(*row, waiting.make_s, infer_s)
        return len(made)

    def _call(self, engine: Engine, images: Pixels) -> Scores:
        """Call the engine, and check that no broken row reaches a caller."""
        self._call_began_at = time.monotonic()
        try:
            scores = engine.run(images)
        finally:
            self._call_began_at = None
        if not scores.are_finite(len(images), engine.num_classes):
            shape = scores.probabilities.shape
            raise EngineFailed(f"The engine answered {len(images)} images with {shape}, or with no numbers.")
        return scores


def _failure(num_images: int, cause: BaseException) -> ServiceError:
    failure = failed_run(num_images, cause)
    failure.__cause__ = cause
    return failure


def _fail(waiting: _Waiting, error: Exception) -> None:
    if not waiting.answer.done():
        waiting.answer.set_exception(error)
