"""The request path: image bytes -> decode -> resize -> micro-batch -> engine -> probabilities -> top-k."""

import asyncio
import functools
import time
from contextlib import ExitStack
from dataclasses import dataclass

from service.engines.engine import Probabilities
from service.engines.open_version import ServedVersion
from service.errors import DeadlineExceeded, InvalidParameter
from service.imaging.decode import Undecoded, decode_square
from service.imaging.pixels import ImageLimits, Pixels, ResizeRule
from service.inference.admission import Admission, PixelBudget
from service.inference.batcher import MicroBatcher, Scored
from service.inference.decode_process import PIXELS_BESIDE, DecodeProcesses
from service.inference.live_model import LiveModel
from service.inference.threads import DECODERS, compute_threads
from service.machine import count_cores

# What a lane decodes by itself: its neighbours in the batch wait for it meanwhile.
_SMALL_PIXELS = 1_000_000
_SMALL_BYTES = 256 * 1024
# What a picture is decoded to by a thread without holding up the others noticeably.
_MIDDLING_PIXELS = 4_000_000


@dataclass(frozen=True)
class Score:
    """One class: its label and its probability (0-1, the engine's float32 without loss)."""

    label: str
    probability: float


@dataclass(frozen=True)
class Timings:
    """Where one prediction's time went, in seconds; `queue_s` is waiting for a thread, and for those ahead of it."""

    decode_s: float
    queue_s: float
    infer_s: float


@dataclass(frozen=True)
class Prediction:
    """The answer for one image. `scores` is sorted, best first; those of all classes sum to 1 within 1e-5."""

    model: str
    version: int
    scores: tuple[Score, ...]
    confident: bool
    timings: Timings


class Predictor:
    """All that the API calls.

    Args:
        live_model: which version answers.
        admission: who may wait.
        batcher: the way to the engine.
        limits: what one image may ask of the machine; those being decoded ahead share twice `max_image_pixels`.
        decode_threads: threads that decode what lanes do not, or wait for a process that does; 0: one more than
            cores, so that a slow picture on each leaves a thread to the others.
    """

    def __init__(
        self,
        live_model: LiveModel,
        admission: Admission,
        batcher: MicroBatcher,
        *,
        limits: ImageLimits,
        decode_threads: int,
    ) -> None:
        self._live_model = live_model
        self._admission = admission
        self._batcher = batcher
        self._limits = limits
        self._budget = PixelBudget(2 * limits.max_image_pixels)
        self._processes = DecodeProcesses(limits)
        self._decoders = compute_threads(decode_threads or count_cores() + 1, "decode", DECODERS)

    def check_top_k(self, top_k: int | None) -> None:
        """Refuse a wrong `top_k`, or having no model, before a body is read for nothing.

        Raises:
            NotReady: no model can answer.
            InvalidParameter: `top_k` is not between 1 and the number of classes.
        """
        num_classes = len(self._live_model.require().metadata.class_names)
        if top_k is not None and not 1 <= top_k <= num_classes:
            raise InvalidParameter(
                f"top_k is {top_k}; this model has {num_classes} classes: ask for 1 to {num_classes}."
            )

    async def predict(self, data: bytes, *, top_k: int | None = None, deadline: float) -> Prediction:
        """Classify one image.

        Args:
            data: the image file.
            top_k: how many scores the answer holds; None: all classes.
            deadline: on the event loop's clock (seconds); work not begun by then is not done.

        Raises:
            NotReady, InvalidParameter: as `check_top_k`.
            QueueFull: too many images wait; this one was not decoded.
            ImageError: the image is at fault; its neighbours in the batch are not touched.
            DeadlineExceeded: the deadline passed first.
            EngineFailed: the engine call raised.
        """
        self.check_top_k(top_k)
        loaded = self._live_model.require()
        with loaded.in_use(), self._admission.image():
            loop = asyncio.get_running_loop()
            if deadline <= loop.time():
                raise DeadlineExceeded("The deadline had passed when the image had arrived: it was not computed.")
            arrived_at = time.perf_counter()
            try:
                async with asyncio.timeout_at(deadline):
                    if (scored := await self._score_small(data, loaded, deadline)) is not None:
                        decode_s = scored.make_s
                    else:
                        gives_up_at = time.monotonic() + deadline - loop.time()
                        decoding = loop.run_in_executor(self._decoders, self._decode, data, loaded.rule, gives_up_at)
                        del data  # up to 20 MiB each: only pixels wait in the queue
                        try:
                            image, decode_s = await decoding
                        finally:
                            del decoding  # it holds the error that is being raised, whose frames hold it and the file
                        scored = await self._batcher.submit(image, loaded, deadline)
            except TimeoutError:
                raise DeadlineExceeded("The deadline passed before the answer was there: allow more time.") from None
            wait_s = max(0.0, time.perf_counter() - arrived_at - decode_s - scored.infer_s)
            return _rank(scored.probabilities, loaded, top_k, Timings(decode_s, wait_s, scored.infer_s))

    async def _score_small(self, data: bytes, loaded: ServedVersion, deadline: float) -> Scored | None:
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


def _rank(probabilities: Probabilities, loaded: ServedVersion, top_k: int | None, timings: Timings) -> Prediction:
    # The shortest decimal that is this float32: 0.941 rather than 0.9409999847412109, and nothing is lost.
    labels = loaded.metadata.class_names
    scores = [Score(label, float(str(value))) for label, value in zip(labels, probabilities, strict=True)]
    scores.sort(key=lambda score: -score.probability)  # NumPy's sort lets go of the GIL, and waits to have it again
    scores = scores[:top_k]
    confident = scores[0].probability >= loaded.metadata.confidence_threshold
    return Prediction(loaded.model, loaded.version, tuple(scores), confident, timings)
