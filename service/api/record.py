"""Records of requests: the facts that an answer, its log line and its counts share."""

import random
import re
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import cast

from starlette.types import Scope

from service.inference.predictor import Classified
from service.ranking import Score

_REQUEST_ID = re.compile(rb"[\x21-\x7e]{1,128}")


@dataclass(frozen=True, slots=True)
class Prediction:
    """The row of one answered image, and its best class."""

    classified: Classified
    best: Score


@dataclass(slots=True)
class RequestRecord:
    """Facts about one request, filled in while it is answered.

    Attributes:
        request_id: As in the header X-Request-ID.
        problems: Names of the problems that were answered. A batch may have one in each place.
        predictions: One for each image that was answered.
        explained: The row of an explained image. An explanation counts as no prediction.
        num_images: Images of a batch. None means that the request is no batch.
        has_plain_errors: Whether a problem is answered in the form of other clients' protocols.
        traceparent: The request's span, if it has one, in the form of W3C Trace Context.
    """

    request_id: str
    problems: list[str] = field(default_factory=list)
    predictions: list[Prediction] = field(default_factory=list)
    explained: Classified | None = None
    num_images: int | None = None
    has_plain_errors: bool = False
    traceparent: str | None = None

    @property
    def rows(self) -> list[Classified]:
        """The rows of all images that were answered."""
        return [*(prediction.classified for prediction in self.predictions), *filter(None, (self.explained,))]

    @property
    def durations_ms(self) -> dict[str, float]:
        """The stages of the predictions in milliseconds, by name. Those of a batch are the longest of any image."""
        timings = [row.timings for row in self.rows]
        if not timings:
            return {}
        longest_s = {stage: max(timing.stages_s[stage] for timing in timings) for stage in timings[0].stages_s}
        return {stage: round(duration_s * 1000, 2) for stage, duration_s in longest_s.items()}

    @property
    def batch_fields(self) -> dict[str, int]:
        """The numbers of images and of problems of a batch, by name. There are none for another request."""
        return {} if self.num_images is None else {"images": self.num_images, "problems": len(self.problems)}

    def server_timing(self) -> dict[str, str]:
        """Return the header Server-Timing. There is none without a prediction."""
        stages = ", ".join(f"{stage};dur={duration}" for stage, duration in self.durations_ms.items())
        return {"Server-Timing": stages} if stages else {}


def record_of(scope: Scope) -> RequestRecord:
    """Return the record that the telemetry has begun."""
    return cast(RequestRecord, scope["state"]["record"])


def make_request_id() -> str:
    """Return a UUID that sorts by time: version 7 of RFC 9562. Python has it from 3.14 on."""
    milliseconds = time.time_ns() // 1_000_000
    # The system seeds it once, and again after a fork. A system call for each id may cost the event loop its turn.
    value = milliseconds << 80 | random.getrandbits(80)
    value = value & ~(0xF << 76) | 7 << 76  # version
    value = value & ~(0b11 << 62) | 0b10 << 62  # variant
    digits = f"{value:032x}"
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


def take_request_id(headers: Iterable[tuple[bytes, bytes]]) -> str:
    """Return the client's id if it is short and printable without spaces, else a new one.

    Args:
        headers: Names in lower case.
    """
    for name, value in headers:
        if name == b"x-request-id":
            return value.decode("ascii") if _REQUEST_ID.fullmatch(value) else make_request_id()
    return make_request_id()
