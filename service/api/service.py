"""The parts of one running app, as every route finds them."""

import asyncio
from concurrent.futures import Executor
from contextlib import suppress
from dataclasses import dataclass
from typing import cast

from starlette.requests import Request

from service.api.access import ApiKeys
from service.api.metrics import Metrics
from service.api.telemetry import Recorder
from service.inference.admission import Admission
from service.inference.health import Health
from service.inference.live_model import LiveModel
from service.inference.predictor import Predictor


@dataclass(frozen=True)
class Service:
    """What `create_app` has put together; the numbers are settings, in the units of their names.

    `api_keys` is None where everybody may ask; `joiner` puts large bodies together, one at a time.
    """

    health: Health
    live_model: LiveModel
    admission: Admission
    predictor: Predictor
    metrics: Metrics
    recorder: Recorder
    joiner: Executor
    api_keys: ApiKeys | None
    max_image_bytes: int
    body_timeout_s: float
    request_timeout_s: float

    async def drain(self, delay_s: float, timeout_s: float) -> int:
        """Not ready at once; take requests for `delay_s` more; then refuse new ones, answer those accepted.

        What has no answer after `timeout_s` is told that this replica drains. Returns how many images were among that:
        an upload that never came to its end is not the service's to answer.
        """
        self.health.is_draining = True
        await asyncio.sleep(delay_s)
        self.admission.close()
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self.admission.wait_idle()
        num_unanswered = self.admission.num_images
        self.admission.give_up()
        return num_unanswered


def service_of(request: Request) -> Service:
    """The parts behind a request."""
    return cast(Service, request.app.state.service)


def request_id_of(request: Request) -> str:
    """The id that the telemetry gave it, for bodies."""
    return cast(str, request.state.request_id)
