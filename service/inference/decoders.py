"""Threads and processes that decode images ahead of their lane, and the pixels that they may hold together."""

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import structlog

from service.errors import DeadlineExceeded, FlowersError, InvalidImage, OutOfMemory, QueueFull, is_out_of_memory
from service.imaging.decode import decode_square
from service.imaging.inspection import Inspection, inspect
from service.imaging.limits import ImageLimits, ResizeRule
from service.imaging.pixels import Pixels
from service.inference.decode_process import MARGIN_BYTES, NO_MEMORY, DecodeProcess, DecoderEnded, Job
from service.inference.threads import DECODERS, compute_threads
from service.inference.usage import Alone, Shared
from service.machine import can_allocate, count_cores

_MIDDLING_PIXELS = 4_000_000  # a thread decodes so many without holding up the others noticeably
_POLL_S = 0.02
_PIXELS_BESIDE = 8_000_000  # 140 MB that a process takes beside its image: itself, a file of 20 MiB twice, the margin

_TOO_LATE = "The deadline passed before the image was decoded. Allow more time."

log: structlog.typing.FilteringBoundLogger = structlog.get_logger()


class Decoders:
    """Threads that decode middling images. For large ones, and where no header bounds the memory, they have processes.

    Args:
        limits: Of one image. Images that are decoded at the same time share twice `max_image_pixels`.
        num_threads: 0 means one more than cores, so that a slow image on each leaves a thread to the others.
        processes: None means new ones.
        shared: Where this process and the other workers count. None means that there are none.
    """

    def __init__(
        self,
        limits: ImageLimits,
        num_threads: int = 0,
        processes: "DecodeProcesses | None" = None,
        shared: Shared | None = None,
    ) -> None:
        self.limits = limits
        self._budget = PixelBudget(2 * limits.max_image_pixels, shared)
        self._threads = compute_threads(num_threads or count_cores() + 1, "decode", DECODERS)
        self._processes = processes or DecodeProcesses()

    async def decode(
        self, data: bytes, inspection: Inspection | None, rule: ResizeRule, deadline: float
    ) -> tuple[Pixels, float]:
        """Decode one image, and return its square and the seconds that this took.

        An `inspection` of None means that the thread inspects the file. The deadline is event loop time in seconds.
        Errors are those of `inspect` and `DecodeProcesses.decode`.
        """
        run = asyncio.get_running_loop().run_in_executor
        decoding = run(self._threads, self._decode, data, inspection, rule, deadline)
        del data  # up to 20 MiB each: only pixels wait in the queue
        try:
            return await decoding
        finally:
            del decoding  # it holds the error that is being raised, whose frames hold it and the file

    def close(self) -> None:
        """End the threads and processes. What a thread itself decodes ends by itself."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._processes.close()

    def _decode(
        self, data: bytes, inspection: Inspection | None, rule: ResizeRule, deadline: float
    ) -> tuple[Pixels, float]:
        inspection = inspection or inspect(data, self.limits)
        is_bounded = inspection.is_memory_bounded
        with self._budget.hold(inspection.max_pixels + (0 if is_bounded else _PIXELS_BESIDE)):
            began_at = time.perf_counter()
            if is_bounded and inspection.num_pixels <= _MIDDLING_PIXELS:
                square = decode_square(data, rule, inspection)
            else:
                square = self._processes.decode(Job(data, inspection, rule, deadline))
            return square, time.perf_counter() - began_at


class PixelBudget:
    """Limit on the pixels that all workers decode ahead at the same time. A larger image is decoded alone."""

    def __init__(self, max_pixels: int, shared: Shared | None = None) -> None:
        self._max_pixels = max_pixels
        self._shared = shared or Alone()
        self._own = self._shared.own
        self._freed = threading.Condition()

    @contextmanager
    def hold(self, num_pixels: int) -> Iterator[None]:
        """Hold the pixels of one image. The calling thread waits until they are free."""
        # First come, first served. Otherwise small images would pass a large one for ever.
        with self._shared.turn(), self._freed:
            while not self._freed.wait_for(lambda: self._is_free(num_pixels), _POLL_S):
                pass  # another process cannot wake this one
            self._own.num_pixels += num_pixels
        try:
            yield
        finally:
            with self._freed:
                self._own.num_pixels -= num_pixels
                self._freed.notify()

    def _is_free(self, num_pixels: int) -> bool:
        num_held = self._own.num_pixels + sum(other.num_pixels for other in self._shared.others)
        return not num_held or num_held + num_pixels <= self._max_pixels


class DecodeProcesses:
    """As many processes as threads need at the same time. `start` makes one when none is idle (0.2 s, or more).

    A process that has ended is cleared away when the next one is wanted.
    """

    def __init__(self, start: Callable[[], DecodeProcess] = DecodeProcess) -> None:
        self._start = start
        self._lock = threading.Lock()
        self._busy: set[DecodeProcess] = set()
        self._idle: list[DecodeProcess] = []  # the last to be used is the first to be used again
        self._is_closed = False

    def decode(self, job: Job) -> Pixels:
        """Decode one image in a process, as `decode_square` does, bit for bit.

        Raises:
            ImageError: The image is at fault, or has crashed its process.
            OutOfMemory: There is not enough memory for the image, or for a process that it needs.
            QueueFull: No process can be had for another reason, and the image may not be decoded without one.
            DeadlineExceeded: The deadline passed, or `close` was called. A process that is late is ended.
        """
        self._check_time(job)
        if (process := self._take_idle()) is not None:
            with suppress(DecoderEnded):  # it may have ended meanwhile: once more, with a new one
                return self._decode_in(process, job)
        try:
            process = self._start()
        except (EOFError, OSError, MemoryError) as error:
            self._check_time(job)
            log.warning("decoder start failed", reason=repr(error))
            if job.inspection.is_memory_bounded:
                return decode_square(job.data, job.rule, job.inspection)  # better here than not at all
            if is_out_of_memory(error) or not can_allocate(MARGIN_BYTES):
                raise OutOfMemory(NO_MEMORY) from error
            raise QueueFull(
                "No process can be had for an image of this kind. Send it again later, or as JPEG or PNG."
            ) from None
        try:
            return self._decode_in(process, job)
        except DecoderEnded as ended:
            event = "decoder starved" if ended.is_starved else "decoder crashed"
            log.warning(event, num_bytes=len(job.data), exit_code=process.exit_code)
            if ended.is_starved:
                raise OutOfMemory(NO_MEMORY) from None
            raise InvalidImage("The image crashes its decoder. Send a smaller copy, or save it as JPEG.") from None

    def close(self) -> None:
        """End them all, whatever they are at. One that is starting ends when it is ready."""
        with self._lock:
            self._is_closed = True
            for process in self._busy:
                process.kill()
            while self._idle:
                self._idle.pop().close()

    def _check_time(self, job: Job) -> None:
        if self._is_closed or time.monotonic() >= job.deadline:
            raise DeadlineExceeded(_TOO_LATE)

    def _take_idle(self) -> DecodeProcess | None:
        with self._lock:
            for process in [process for process in self._idle if process.exit_code is not None]:
                self._idle.remove(process)
                process.close()
            return self._idle.pop() if self._idle else None

    def _decode_in(self, process: DecodeProcess, job: Job) -> Pixels:
        with self._lock:
            self._busy.add(process)
        is_usable = True
        try:
            self._check_time(job)  # a process that took long to start serves the next image
            is_usable = False
            answer = process.ask(job)
            is_usable = True
        except TimeoutError:
            raise DeadlineExceeded(_TOO_LATE) from None
        except DecoderEnded:
            self._check_time(job)
            raise
        finally:
            self._put_back(process, is_usable=is_usable)
        if isinstance(answer, FlowersError):
            raise answer
        return answer

    def _put_back(self, process: DecodeProcess, *, is_usable: bool) -> None:
        with self._lock:
            self._busy.discard(process)
            if is_usable and not self._is_closed:
                self._idle.append(process)
                return
        process.close()
