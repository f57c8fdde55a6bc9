"""Probes for an orchestrator, and metrics for Prometheus."""

from fastapi import APIRouter
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.requests import Request
from starlette.responses import Response

from service import errors
from service.api import problems
from service.api.schemas import Probe
from service.api.service import service_of

router = APIRouter(tags=["operation"])


@router.get("/livez", summary="Is the process alive")
async def livez() -> Probe:
    """True while the event loop answers. It never asks the model. If it fails, restart the process."""
    return Probe(status="alive")


@router.get("/startupz", summary="Has it started", responses=problems.document(errors.NotReady))
async def startupz(request: Request) -> Probe:
    """True from the first model that is loaded and warmed up."""
    health = service_of(request).health
    if not health.is_started:
        raise errors.NotReady(_sentence(health.reasons))
    return Probe(status="started")


@router.get("/readyz", summary="Does it take work", responses=problems.document(errors.NotReady, errors.Draining))
async def readyz(request: Request) -> Probe:
    """True while a verified, warmed-up model can answer and the service is not shutting down.

    It can turn false again. Then send no work, and do not restart the process.
    """
    health = service_of(request).health
    if health.is_draining:
        raise errors.Draining(_sentence(health.reasons))
    if not health.is_ready:
        raise errors.NotReady(_sentence(health.reasons))
    return Probe(status="ready")


@router.get(
    "/metrics",
    summary="Metrics for Prometheus",
    response_class=Response,
    responses={200: {"content": {CONTENT_TYPE_LATEST: {"schema": {"type": "string"}}}}},
)
async def metrics(request: Request) -> Response:
    """Return the counters since the start, in Prometheus' text format."""
    return Response(generate_latest(service_of(request).metrics.registry), media_type=CONTENT_TYPE_LATEST)


def _sentence(reasons: tuple[str, ...]) -> str:
    text = "; ".join(reasons)
    return f"{text[:1].upper()}{text[1:]}."
