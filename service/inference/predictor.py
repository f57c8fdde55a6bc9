"""The request path: image bytes -> inspect -> decode -> resize -> micro-batch -> engine -> probabilities."""

import asyncio
import functools
import time
from dataclasses import dataclass

from service.engines.engine import Probabilities
from service.engines.open_version import ServedVersion
from service.errors import DeadlineExceeded
from service.imaging.decode import decode_square
from service.imaging.inspection import inspect, is_quick
from service.imaging.pixels import Pixels
from service.inference.admission import Ticket
from service.inference.batcher import MicroBatcher, Row
from service.inference.decoders import Decoders
from service.inference.live_model import LiveModel

# The lane decodes so many pixels by itself. The image's neighbours in the batch wait for it meanwhile.
_SMALL_PIXELS = 1_000_000


@dataclass(frozen=True)
class Timings:
    """Stages of one image, in seconds. `queue_s` is the wait for a thread, and for the images ahead of it.

    `ended_at` is the end of the last stage, on the clock of `time.perf_counter`.
    """

    decode_s: float
    queue_s: float
    infer_s: float
    ended_at: float

    @property
    def stages_s(self) -> dict[str, float]:
        """The stages by name."""
        return {"decode": self.decode_s, "queue": self.queue_s, "infer": self.infer_s}


@dataclass(frozen=True, eq=False)
class Classified:
    """Row of one image: float32, shape (num_classes,), sum 1 within 1e-5, ordered like the version's `class_names`.

    The version has computed it. Its engine may be closed by now. An energy or a distance of None is no output of it.
    """

    version: ServedVersion
    probabilities: Probabilities
    timings: Timings
    energy: float | None = None
    distance: float | None = None


class Predictor:
    """The core that every route calls. `decoders` decode what the lane does not."""

    def __init__(self, live_model: LiveModel, batcher: MicroBatcher, decoders: Decoders) -> None:
        self._live_model = live_model
        self._batcher = batcher
        self._decoders = decoders

    def require(self) -> ServedVersion:
        """Return the version in use, before a body is read for nothing. Raises `NotReady` where there is none."""
        return self._live_model.require()

    async def classify(
        self,
        image: bytes | Pixels,
        ticket: Ticket,
        deadline: float,
        *,
        version: ServedVersion | None = None,
        decodes_ahead: bool = False,
    ) -> Classified:
        """Score one image.

        Args:
            image: An image file, or a square of the version's size: uint8, shape (image_size, image_size, 3), sRGB.
            ticket: Of the admitted request.
            deadline: Event loop time in seconds. Work that has not started by then is dropped.
            version: The version to score with. The default is the one in use.
            decodes_ahead: Whether a thread decodes a small image, too. That takes more time of the cores in all, and
                uses those that the lane leaves idle.

        Raises:
            NotReady: No model can answer.
            QueueFull: Too many images wait. This one was not decoded.
            ImageError: The image is at fault. Its neighbours in the batch are not touched.
            DeadlineExceeded: The deadline passed first.
            EngineFailed: The engine call raised.
            OutOfMemory: There is not enough memory.
        """
        version = version or self.require()
        with version.in_use(), ticket.image():
            if deadline <= asyncio.get_running_loop().time():
                raise DeadlineExceeded("The deadline passed before the image had arrived. Allow more time.")
            arrived_at = time.perf_counter()
            try:
                async with asyncio.timeout_at(deadline):
                    work = self._score(image, version, deadline, decodes_ahead=decodes_ahead)
                    del image  # up to 20 MiB: only pixels wait in the queue
                    row, decode_s = await work
            except TimeoutError:
                raise DeadlineExceeded("The deadline passed before the answer was there. Allow more time.") from None
            ended_at = time.perf_counter()
            wait_s = max(0.0, ended_at - arrived_at - decode_s - row.infer_s)
            timings = Timings(decode_s, wait_s, row.infer_s, ended_at)
            return Classified(version, row.probabilities, timings, row.energy, row.distance)

    async def _score(
        self, image: bytes | Pixels, version: ServedVersion, deadline: float, *, decodes_ahead: bool
    ) -> tuple[Row, float]:
        """Return the image's row, and the seconds that its decoding took.

        The lane decodes a small image. `Decoders` decodes others ahead, and inspects where that may take long.
        """
        if not isinstance(image, bytes):
            return await self._batcher.submit(image, version, deadline), 0.0
        inspection = inspect(image, self._decoders.limits) if is_quick(image) else None
        is_small = inspection and inspection.is_memory_bounded and inspection.num_pixels <= _SMALL_PIXELS
        if inspection and is_small and version.engine.lanes_decode and not decodes_ahead:
            decode = functools.partial(decode_square, image, version.rule, inspection)
            row = await self._batcher.submit(decode, version, deadline)
            return row, row.make_s
        decoding = self._decoders.decode(image, inspection, version.rule, deadline)
        del image
        square, decode_s = await decoding
        return await self._batcher.submit(square, version, deadline), decode_s
