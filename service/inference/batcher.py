"""MicroBatcher: callers hand in one image each; the engine gets whatever waits when a lane is free.

All bookkeeping happens on the event loop's thread, so there are no locks, and nothing polls: a batch is
formed when an image arrives and when a lane comes free. An idle service adds no wait; a busy one fills its
batches by itself.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from service.engines.engine import Engine, Probabilities
from service.errors import DeadlineExceeded, Draining, EngineFailed, QueueFull
from service.imaging.pixels import Pixels
from service.inference.loaded_version import LoadedVersion
from service.inference.threads import compute_threads

_MOST_LANES = 256


@dataclass(frozen=True)
class Scored:
    """One image's row, and how long it waited for a lane and sat in the engine call (seconds)."""

    probabilities: Probabilities
    queue_s: float
    infer_s: float


@dataclass(frozen=True, eq=False)
class _Waiting:
    image: Pixels
    loaded: LoadedVersion
    deadline: float | None
    queued_at: float
    answer: asyncio.Future[Scored]


class MicroBatcher:
    """A bounded queue in front of lanes, the threads that run the engine.

    Args:
        max_batch_size: most images in one engine call; an engine may want fewer.
        max_queue_size: most images that may wait; those in a lane do not count.
        lanes: engine calls at the same time; None: as many as the engine says.
        on_batch: told the size of each batch when it is done, for the metrics.
    """

    def __init__(
        self,
        *,
        max_batch_size: int,
        max_queue_size: int,
        lanes: int | None = None,
        on_batch: Callable[[int], None] = lambda _: None,
    ) -> None:
        self._max_batch_size = max_batch_size
        self._max_queue_size = max_queue_size
        self._on_batch = on_batch
        self._waiting: deque[_Waiting] = deque()
        self._running: set[asyncio.Task[None]] = set()
        self._lanes = lanes
        self._threads = compute_threads(lanes or _MOST_LANES, "lane")  # made when needed
        self._calls: dict[object, float] = {}  # batch -> when its engine call began, on the event loop's clock
        self.num_computing = 0
        """Images in lanes at this moment."""
        self.last_success_at = float("-inf")
        """When an engine call last gave an answer, on the event loop's clock (seconds)."""
        self.is_failing = False
        """Whether the last engine call to end has raised."""

    def longest_call_s(self, now: float) -> float:
        """Age of the oldest engine call that has not ended, in seconds; 0 when none runs."""
        return max((now - began for began in self._calls.values()), default=0.0)

    async def submit(self, image: Pixels, loaded: LoadedVersion, deadline: float | None = None) -> Scored:
        """Score one image, sharing the engine call with its neighbours in time.

        It goes with whoever waits for the same version when a lane is free; each caller gets its own row
        back. A caller that is cancelled leaves the queue, and its image is not computed.

        Args:
            image: uint8, shape (image_size, image_size, 3), RGB, 0-255, as `resize` returns it.
            loaded: the version that shall score it; images of two versions never share a batch.
            deadline: on the event loop's clock (seconds); past it the image is dropped, not computed.

        Returns:
            Its probabilities: float32, shape (num_classes,), sum 1 within 1e-5, ordered like `class_names`.

        Raises:
            QueueFull: `max_queue_size` images already wait; this one was not queued.
            DeadlineExceeded: the deadline passed before its batch was formed.
            EngineFailed: the engine call raised; every image of that batch gets this error.

        Source: TensorFlow Serving, batching guide (max_batch_size, max_enqueued_batches); its batch timeout
        has no counterpart here, since waiting for company while a lane is free only adds latency.
        """
        if len(self._waiting) >= self._max_queue_size:
            raise QueueFull(
                f"{len(self._waiting)} images already wait, as many as may: "
                "send it again after the seconds in Retry-After."
            )
        loop = asyncio.get_running_loop()
        waiting = _Waiting(image, loaded, deadline, time.perf_counter(), loop.create_future())
        self._waiting.append(waiting)
        self._fill_lanes()
        try:
            return await waiting.answer
        except asyncio.CancelledError:
            if waiting in self._waiting:
                self._waiting.remove(waiting)
            raise

    def close(self) -> None:
        """Give up what waits and take nothing more; a batch in a lane ends by itself."""
        while self._waiting:
            _fail(self._waiting.popleft(), Draining("This replica has shut down: send the request again."))
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _fill_lanes(self) -> None:
        while self._has_free_lane() and (batch := self._take_batch()):
            task = asyncio.get_running_loop().create_task(self._run(batch))
            self._running.add(task)
            task.add_done_callback(self._free_lane)
            self.num_computing += len(batch)

    def _has_free_lane(self) -> bool:
        return bool(self._waiting) and len(self._running) < (self._lanes or self._waiting[0].loaded.engine.num_lanes)

    def _free_lane(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        self._fill_lanes()

    def _take_batch(self) -> list[_Waiting]:
        now = asyncio.get_running_loop().time()
        batch: list[_Waiting] = []
        while self._waiting and len(batch) < min(self._max_batch_size, self._waiting[0].loaded.engine.max_batch_size):
            first = self._waiting[0]
            if first.deadline is not None and first.deadline <= now:
                _fail(
                    self._waiting.popleft(),
                    DeadlineExceeded("The deadline passed while the image waited: it was not computed."),
                )
            elif first.answer.done():
                self._waiting.popleft()  # its caller was cancelled and has not yet taken it out
            elif batch and first.loaded is not batch[0].loaded:
                break
            else:
                batch.append(self._waiting.popleft())
        return batch

    async def _run(self, batch: list[_Waiting]) -> None:
        started_at = time.perf_counter()
        loaded = batch[0].loaded
        loop = asyncio.get_running_loop()
        call = object()
        self._calls[call] = loop.time()
        try:
            with loaded.in_use():
                images = [waiting.image for waiting in batch]
                rows = await loop.run_in_executor(self._threads, _compute, loaded.engine, images)
        except Exception as error:
            self.is_failing = True
            for waiting in batch:
                failure = EngineFailed(f"the engine call for {len(batch)} images failed: {error!r}")
                failure.__cause__ = error
                _fail(waiting, failure)
        else:
            self.is_failing, self.last_success_at = False, loop.time()
            infer_s = time.perf_counter() - started_at
            for waiting, row in zip(batch, rows, strict=True):
                if not waiting.answer.done():
                    waiting.answer.set_result(Scored(row, started_at - waiting.queued_at, infer_s))
        finally:
            del self._calls[call]
            self.num_computing -= len(batch)
            self._on_batch(len(batch))


def _compute(engine: Engine, images: list[Pixels]) -> Probabilities:
    """In a lane's thread; the check keeps a broken row from reaching a caller as an answer."""
    probabilities = engine.run(np.stack(images))
    if probabilities.shape != (len(images), engine.num_classes) or not np.isfinite(probabilities).all():
        raise EngineFailed(f"the engine answered {len(images)} images with {probabilities.shape}, or with no numbers")
    return probabilities


def _fail(waiting: _Waiting, error: Exception) -> None:
    if not waiting.answer.done():
        waiting.answer.set_exception(error)
