"""The request path: image bytes -> inspect -> decode -> resize -> micro-batch -> engine -> probabilities."""

import asyncio
import functools
import time
from contextlib import ExitStack
from dataclasses import dataclass

from service.engines.engine import Probabilities
from service.engines.open_version import LoadedVersion
from service.errors import DeadlineExceeded
from service.imaging.decode import Undecoded, decode_square
from service.imaging.pixels import ImageLimits, Pixels, ResizeRule
from service.inference.admission import Ticket
from service.inference.batcher import MicroBatcher, Row
from service.inference.decode_process import PIXELS_BESIDE, DecodeProcesses
from service.inference.decoders import PixelBudget
from service.inference.live_model import LiveModel
from service.inference.threads import DECODERS, compute_threads
from service.machine import count_cores

# What a lane decodes by itself: its neighbours in the batch wait for it meanwhile.
_SMALL_PIXELS = 1_000_000
_SMALL_BYTES = 256 * 1024
# What a picture is decoded to by a thread without holding up the others noticeably.
_MIDDLING_PIXELS = 4_000_000


@dataclass(frozen=True)
class Timings:
    """Where one prediction's time went, in seconds; `queue_s` is waiting for a thread, and for those ahead of it."""

    decode_s: float
    queue_s: float
    infer_s: float


@dataclass(frozen=True, eq=False)
class Classified:
    """Row of one image.

    Attributes:
        version: The version that computed it. Its engine may be closed by now.
        probabilities: float32, shape (num_classes,), sum 1 within 1e-5, ordered like the version's `class_names`.
        timings: Where the time went.
    """

    version: LoadedVersion
    probabilities: Probabilities
    timings: Timings


class Predictor:
    """All that the API calls.

    Args:
        live_model: which version answers.
        batcher: the way to the engine.
        limits: what one image may ask of the machine; those being decoded ahead share twice `max_image_pixels`.
        decode_threads: threads that decode what lanes do not, or wait for a process that does; 0: one more than
            cores, so that a slow picture on each leaves a thread to the others.
    """

    def __init__(
        self,
        live_model: LiveModel,
        batcher: MicroBatcher,
        *,
        limits: ImageLimits,
        decode_threads: int,
    ) -> None:
        self._live_model = live_model
        self._batcher = batcher
        self._limits = limits
        self._budget = PixelBudget(2 * limits.max_image_pixels)
        self._processes = DecodeProcesses(limits)
        self._decoders = compute_threads(decode_threads or count_cores() + 1, "decode", DECODERS)

    def require(self) -> LoadedVersion:
        """Return the version in use, before a body is read for nothing. Raises `NotReady` where there is none."""
        return self._live_model.require()

    async def classify(self, image: bytes | Pixels, ticket: Ticket, deadline: float) -> Classified:
        """Score one image with the version in use.

        Args:
            image: An image file, or a square of the version's size: uint8, shape (image_size, image_size, 3), sRGB.
            ticket: Of the admitted request.
            deadline: Event loop time in seconds. Work that has not started by then is dropped.

        Raises:
            NotReady: No model can answer.
            QueueFull: Too many images wait. This one was not decoded.
            ImageError: The image is at fault. Its neighbours in the batch are not touched.
            DeadlineExceeded: The deadline passed first.
            EngineFailed: The engine call raised.
        """
        loaded = self.require()
        with loaded.in_use(), ticket.image():
            loop = asyncio.get_running_loop()
            if deadline <= loop.time():
                raise DeadlineExceeded("The deadline had passed when the image had arrived: it was not computed.")
            arrived_at = time.perf_counter()
            try:
                async with asyncio.timeout_at(deadline):
                    if not isinstance(image, bytes):
                        decode_s, scored = 0.0, await self._batcher.submit(image, loaded, deadline)
                    elif (small := await self._score_small(image, loaded, deadline)) is not None:
                        decode_s, scored = small.make_s, small
                    else:
                        gives_up_at = time.monotonic() + deadline - loop.time()
                        decoding = loop.run_in_executor(self._decoders, self._decode, image, loaded.rule, gives_up_at)
                        del image  # up to 20 MiB each: only pixels wait in the queue
                        try:
                            square, decode_s = await decoding
                        finally:
                            del decoding  # it holds the error that is being raised, whose frames hold it and the file
                        scored = await self._batcher.submit(square, loaded, deadline)
            except TimeoutError:
                raise DeadlineExceeded("The deadline passed before the answer was there: allow more time.") from None
            wait_s = max(0.0, time.perf_counter() - arrived_at - decode_s - scored.infer_s)
            return Classified(loaded, scored.probabilities, Timings(decode_s, wait_s, scored.infer_s))

    async def _score_small(self, data: bytes, loaded: LoadedVersion, deadline: float) -> Row | None:
        """Decoded in its lane; None if the engine wants no such thing, or the picture would hold up its neighbours."""
        if not loaded.engine.lanes_decode or len(data) > _SMALL_BYTES:
            return None
        decode = functools.partial(decode_square, data, loaded.rule, self._limits, _leave_large)
        try:
            return await self._batcher.submit(decode, loaded, deadline)
        except Undecoded:
            return None

    def _decode(self, data: bytes, rule: ResizeRule, gives_up_at: float) -> tuple[Pixels, float]:
        """In a decoding thread: the square that the network sees, and the seconds it took."""
        with ExitStack() as held:
            started_at = time.perf_counter()

            def wait_for_room(num_pixels: int, num_decoded: int | None) -> None:
                nonlocal started_at
                beside = PIXELS_BESIDE if num_decoded is None else 0
                held.enter_context(self._budget.hold(num_pixels + beside))
                started_at = time.perf_counter()
                if num_decoded is None or num_decoded > _MIDDLING_PIXELS:
                    raise Undecoded

            try:
                image = decode_square(data, rule, self._limits, wait_for_room)
            except Undecoded:
                image = self._processes.decode_square(data, rule, gives_up_at)
            return image, time.perf_counter() - started_at

    def close(self) -> None:
        """End the decoding threads and processes; what a thread itself decodes ends by itself."""
        self._decoders.shutdown(wait=False, cancel_futures=True)
        self._processes.close()


def _leave_large(num_pixels: int, num_decoded: int | None) -> None:
    if num_decoded is None or num_pixels > _SMALL_PIXELS:
        raise Undecoded
