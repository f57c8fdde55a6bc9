"""Parts of one running app, and its drain."""

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from typing import cast

from starlette.requests import Request

from service.api.access import ApiKeys
from service.api.batch_upload import BatchLimits
from service.api.json_bodies import max_body_bytes
from service.api.metrics import Metrics
from service.api.protocols.protocol import Protocols
from service.api.replica import Readiness
from service.api.telemetry import Recorder
from service.api.upload import UploadLimits
from service.inference.admission import Admission
from service.inference.health import Health
from service.inference.live_model import LiveModel
from service.inference.occlusion import Explainer
from service.inference.predictor import Predictor


@dataclass(frozen=True)
class Service:
    """Parts that `create_app` has put together.

    `api_keys` is None where the service is open. `explainer` is None where explanations are off.
    """

    health: Health
    readiness: Readiness
    live_model: LiveModel
    admission: Admission
    predictor: Predictor
    metrics: Metrics
    recorder: Recorder
    api_keys: ApiKeys | None
    upload_limits: UploadLimits
    protocols: Protocols
    batch_limits: BatchLimits
    request_timeout_s: float
    explainer: Explainer | None
    explain_timeout_s: float

    @property
    def max_json_bytes(self) -> int:
        """Limit of a JSON body with one image. The queue must hold it."""
        return min(max_body_bytes(self.upload_limits.max_image_bytes), self.admission.max_queue_bytes)

    async def drain(self, delay_s: float, timeout_s: float) -> int:
        """Turn unready at once, take requests for `delay_s` seconds more, then answer the accepted ones.

        A request without an answer after `timeout_s` seconds is told that this replica drains. Return the number of
        images without an answer. An upload that has not ended does not count.
        """
        self.health.is_draining = True
        await asyncio.sleep(delay_s)
        self.admission.close()
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self.admission.wait_idle()
        num_unanswered = self.admission.num_images + self.admission.shared.own.num_explanations
        self.admission.give_up()
        return num_unanswered


def service_of(request: Request) -> Service:
    """Return the parts behind a request."""
    return cast(Service, request.app.state.service)
