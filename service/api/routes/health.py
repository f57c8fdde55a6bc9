"""Probes for an orchestrator, and metrics for Prometheus."""

import asyncio

from fastapi import APIRouter
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from service import errors
from service.api import problems
from service.api.schemas import Probe
from service.api.service import Service, service_of

router = APIRouter(tags=["operation"])


@router.get("/livez", summary="Is the process alive", responses=problems.document())
async def livez() -> Probe:
    """True while the event loop answers. It never asks the model. If it fails, restart the process."""
    return Probe(status="alive")


@router.get("/startupz", summary="Has it started", responses=problems.document(errors.NotReady))
async def startupz(request: Request) -> Probe:
    """True from the first model that is loaded and warmed up."""
    readiness = service_of(request).readiness
    if not readiness.is_started():
        raise errors.NotReady(" ".join(readiness.reasons()))
    return Probe(status="started")


@router.get("/readyz", summary="Does it take work", responses=problems.document(errors.NotReady, errors.Draining))
async def readyz(request: Request) -> Probe:
    """True while a verified, warmed-up model can answer and the service is not shutting down.

    It can turn false again. Then send no work, and do not restart the process.
    """
    require_ready(service_of(request))
    return Probe(status="ready")


async def answer_probe(request: Request) -> Response:
    """Answer the probe of a platform as `/readyz` does."""
    require_ready(service_of(request))
    return JSONResponse({"status": "ready"})


def require_ready(service: Service) -> None:
    """Raise `Draining` or `NotReady` with the reasons, if the service takes no work."""
    if service.health.is_draining:
        raise errors.Draining(" ".join(service.health.reasons))
    if reasons := service.readiness.reasons():
        raise errors.NotReady(" ".join(reasons))


@router.get(
    "/metrics",
    summary="Metrics for Prometheus",
    response_class=Response,
    responses={200: {"content": {CONTENT_TYPE_LATEST: {"schema": {"type": "string"}}}}, **problems.document()},
)
async def metrics(request: Request) -> Response:
    """Return the counters of the replica since its start, in Prometheus' text format."""
    metrics = service_of(request).metrics
    text = await asyncio.to_thread(metrics.expose) if metrics.is_shared else metrics.expose()
    return Response(text, media_type=CONTENT_TYPE_LATEST)
