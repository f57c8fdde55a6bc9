"""Refusing before the router: five times the load a replica can take must not cost it what it could have answered."""

from starlette.types import ASGIApp, Receive, Scope, Send

from service.api.problems import error_response
from service.errors import ServiceError
from service.inference.admission import Admission

_PATHS = frozenset({"/predict"})


class TurnAway:
    """Answers 429 or 503 to predictions that would be refused anyway, for a fraction of what the route would cost.

    The route asks again: what is let past may find the queue full when its body has arrived.
    """

    def __init__(self, app: ASGIApp, *, admission: Admission) -> None:
        self._app = app
        self._admission = admission

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer it."""
        if scope["type"] == "http" and scope["method"] == "POST" and scope["path"] in _PATHS:
            try:
                self._admission.check()
            except ServiceError as error:
                scope["state"]["route"] = scope["path"]
                await error_response(scope, error)(scope, receive, send)
                return
        await self._app(scope, receive, send)
