"""`create_app`: settings -> the service as an ASGI app."""

import asyncio
import functools
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from fastapi import FastAPI
from fastapi.middleware.cors import CORSMiddleware
from starlette.routing import Route

from service import __version__, errors
from service.api import problems
from service.api.access import PROBES, ApiKeys, Guard, read_keys
from service.api.batch_upload import BatchLimits
from service.api.metrics import Metrics, ServiceCollector
from service.api.openapi import describe
from service.api.protocols import hugging_face, open_inference, sagemaker, tensorflow_serving, vertex
from service.api.protocols.protocol import Protocols
from service.api.protocols.served_model import TensorLimits
from service.api.replica import Readiness, Replica
from service.api.routes import batch, docs, explain, health, models, page, predict
from service.api.service import Service
from service.api.telemetry import Recorder, Telemetry
from service.api.tracing import UNTRACED, make_tracing
from service.api.upload import UploadLimits
from service.engines import open_version
from service.engines.engine import Engine
from service.engines.wish import EngineWish
from service.inference.admission import Admission
from service.inference.batcher import MicroBatcher
from service.inference.decoders import Decoders
from service.inference.explanations import ExplanationLimit
from service.inference.health import Health
from service.inference.live_model import LiveModel
from service.inference.occlusion import Explainer
from service.inference.predictor import Predictor
from service.inference.threads import LANES, compute_threads
from service.inference.usage import Alone, Shared
from service.inference.watchdog import Watchdog
from service.machine import bounded_queue_bytes, memory_left
from service.remote_store.puller import make_puller
from service.settings import ServeSettings
from service.store.verify import VerifiedVersion


def create_app(
    settings: ServeSettings,
    live_model: LiveModel | None = None,
    *,
    replica: Replica | None = None,
    on_fatal: Callable[[errors.FlowersError], None] = lambda _: None,
    on_loaded: Callable[[], None] = lambda: None,
    num_dropped_lines: Callable[[], int] = lambda: 0,
) -> FastAPI:
    """Return the service as an ASGI app. Nothing runs before its lifespan begins.

    Args:
        settings: All knobs. Nothing below this function reads them.
        live_model: For tests that command the engine. The default follows the settings.
        replica: The replica that this process is a worker of. None means that it is alone.
        on_fatal: Called with an error that no other version can mend, or of a hanging engine. The process should end.
        on_loaded: Called on the loading thread when an engine has been loaded.
        num_dropped_lines: Gives the number of log lines dropped so far, for the metrics.
    """
    live_model = live_model or _make_live_model(settings, on_fatal, on_loaded, follows_store=replica is None)
    puller = None
    if replica is None:  # else the supervisor has one
        puller = make_puller(
            settings.model_store,
            live_model.watch,
            interval_s=settings.reload_interval_s,
            max_bytes=settings.max_cache_bytes,
        )
    shared: Shared = replica or Alone()
    metrics = Metrics(replica)
    recorder = Recorder(metrics, access_log=settings.access_log)
    batcher = MicroBatcher(
        max_batch_size=settings.max_batch_size,
        on_batch=metrics.batch_size.observe,
        on_computing=functools.partial(setattr, shared.own, "num_computing"),
    )
    queue_bytes = bounded_queue_bytes(settings.max_queue_bytes, memory_left())
    admission = Admission(
        max_queue_size=settings.max_queue_size,
        max_queue_bytes=max(queue_bytes, settings.max_image_bytes),  # one image always fits
        min_queue_size=live_model.min_queue_size,
        shared=shared,
    )
    readiness = Readiness(live_model.health, replica)
    metrics.registry.register(ServiceCollector(readiness, admission, live_model, num_dropped_lines))
    decoders = Decoders(settings.limits, settings.decode_threads, shared=shared)
    predictor = Predictor(live_model, batcher, decoders)
    explanation_limit = ExplanationLimit(
        max_at_work=settings.max_explanations, max_waiting=settings.max_waiting_explanations, shared=shared
    )
    explainer = Explainer(live_model, batcher, decoders, admission, explanation_limit)

    joiner = compute_threads(1, "join", LANES)
    watchdog = Watchdog(live_model, batcher, on_fatal)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        if puller is not None:
            puller.start()
        live_model.start()  # in the background: the probes answer while the model loads
        watchdog.start()
        watching_lag = asyncio.create_task(metrics.watch_event_loop())
        yield
        if puller is not None:
            puller.stop()
        watching_lag.cancel()
        await watchdog.stop()
        await live_model.stop()
        decoders.close()
        batcher.close()
        joiner.shutdown(wait=False, cancel_futures=True)
        if tracing is not None:
            tracing.close()

    tracing = make_tracing(os.environ)
    app = FastAPI(
        version=__version__,
        lifespan=lifespan,
        openapi_url=None,  # ours is counted under its own path
        docs_url=None,  # ours works offline
        redoc_url=None,
        redirect_slashes=False,
        telemetry=tracing.config() if tracing else UNTRACED,
    )
    api_keys = read_keys(settings.api_keys, settings.api_keys_file)
    upload_limits = UploadLimits(settings.max_image_bytes, settings.body_timeout_s, admission.is_busy, joiner)
    protocols = _choose_protocols(settings, upload_limits)
    app.state.service = Service(
        health=live_model.health,
        readiness=readiness,
        live_model=live_model,
        admission=admission,
        predictor=predictor,
        metrics=metrics,
        recorder=recorder,
        api_keys=api_keys,
        upload_limits=upload_limits,
        protocols=protocols,
        batch_limits=BatchLimits(upload_limits, settings.max_batch_images, settings.max_batch_bytes),
        request_timeout_s=settings.request_timeout_s,
        explainer=explainer if settings.explanations else None,
        explain_timeout_s=settings.explain_timeout_s,
    )
    # First, since a router that is included is searched twice. A protocol may share the path of another route.
    app.router.routes.extend([*protocols.routes, *predict.routes, *batch.routes])
    if settings.explanations:
        app.router.routes.extend(explain.routes)
    for room in (models, health, docs):
        app.include_router(room.router)
    app.include_router(page.router)
    problems.add_handlers(app)
    describe(app, live_model.model, _guard(app, settings, api_keys, protocols), protocols)
    app.add_middleware(page.PrefixRedirect)  # outside of the keys: a redirect tells nothing
    app.add_middleware(Telemetry, recorder=recorder, protocols=protocols, tracing=tracing)  # added last: outermost
    return app


def _choose_protocols(settings: ServeSettings, limits: UploadLimits) -> Protocols:
    """Return the protocols that the settings switch on."""
    switches = [(settings.hugging_face, hugging_face.PROTOCOL), (settings.sagemaker, sagemaker.PROTOCOL)]
    chosen = [protocol for is_on, protocol in switches if is_on]
    max_images = min(settings.max_batch_size, settings.max_queue_size)
    tensor_limits = TensorLimits(limits, max_images, settings.max_batch_bytes)
    if settings.open_inference:
        chosen.append(open_inference.make_protocol(tensor_limits))
    if settings.tensorflow_serving:
        chosen.append(tensorflow_serving.make_protocol(tensor_limits))
    if settings.vertex:
        handlers = vertex.Vertex(
            limits,
            max_images=max_images,
            max_bytes=settings.max_batch_bytes,
            model_id=settings.vertex_deployed_model_id,
        )
        taken = [route for protocol in chosen for route in protocol.routes]
        taken += [*predict.routes, *batch.routes, *explain.routes]
        routers = [room.router for room in (models, health, docs, page)]
        taken += [route for router in routers for route in router.routes if isinstance(route, Route)]
        routes = settings.vertex_health_route, settings.vertex_predict_route
        chosen.insert(0, vertex.make_protocol(handlers, *routes, taken))  # it may share a path
    return Protocols(chosen)


def _guard(
    app: FastAPI, settings: ServeSettings, api_keys: ApiKeys | None, protocols: Protocols
) -> frozenset[str] | None:
    """Add the layers for keys and for web pages of other origins, where they are configured.

    Returns:
        Paths that want no key. None means that there are no keys.
    """
    open_paths = None
    if api_keys is not None:
        metrics = {"/metrics"} if settings.open_metrics else set()
        documents = {"/docs", "/openapi.json", "/problems"} if settings.open_docs else set()
        open_paths = PROBES | page.OPEN_PATHS | metrics | documents
        app.add_middleware(Guard, keys=api_keys, open_paths=open_paths, protocols=protocols)
    if origins := [origin.strip() for origin in settings.cors_origins.split(",") if origin.strip()]:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=origins,
            allow_methods=["GET", "POST"],
            allow_headers=["Authorization", "Content-Type", "X-API-Key", "X-Request-ID", "X-Request-Timeout-Ms"],
            expose_headers=[
                "Retry-After",
                "Server-Timing",
                "X-Request-ID",
                explain.LABEL_HEADER,
                explain.PROBABILITY_HEADER,
            ],
        )
    return open_paths


def _make_live_model(
    settings: ServeSettings,
    on_fatal: Callable[[errors.FlowersError], None],
    on_loaded: Callable[[], None],
    *,
    follows_store: bool,
) -> LiveModel:
    def load(version: VerifiedVersion, wish: EngineWish) -> Engine:
        engine = open_version.load_engine(version, wish)
        on_loaded()
        return engine

    return LiveModel(
        settings.store_folder,
        settings.model,
        wish=settings.wish,
        load=load,
        health=Health(),
        max_batch_size=settings.max_batch_size,
        reload_interval_s=settings.reload_interval_s,
        on_fatal=on_fatal,
        follows_store=follows_store,
    )
