"""SageMaker: `GET /ping` and `POST /invocations`, which takes and answers what `/predict` does.

Source: SageMaker's developer guide, "Custom Inference Code with Hosting Services".
"""

from starlette.routing import Route

from service.api.protocols.protocol import Protocol
from service.api.routes.health import answer_probe
from service.api.routes.predict import predict

PING, INVOCATIONS = "/ping", "/invocations"

PROTOCOL = Protocol(
    [Route(PING, answer_probe, methods=["GET"]), Route(INVOCATIONS, predict, methods=["POST"])],
    frozenset({PING, INVOCATIONS}),
    frozenset({PING}),
)
