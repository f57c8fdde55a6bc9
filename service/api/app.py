"""`create_app`: settings -> the service, its parts put together and its life begun and ended."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import FastAPI

from service import __version__, errors
from service.api import problems
from service.api.connection import LingeringClose
from service.api.context import Service
from service.api.routes import docs, health, models, predict
from service.api.telemetry import Metrics, ServiceCollector, Telemetry
from service.engines.engine import Engine
from service.imaging.pixels import ImageLimits
from service.inference.admission import Admission
from service.inference.batcher import MicroBatcher
from service.inference.health import Health
from service.inference.live_model import LiveModel
from service.inference.predictor import Predictor
from service.inference.watchdog import Watchdog
from service.settings import ServeSettings

_DESCRIPTION = """
Scores for photographs of flowers, by a network that was trained on a folder of them.

    curl -F file=@tulip.jpg localhost:8000/predict

Every answer has an `X-Request-ID`. Everything that goes wrong is answered as `application/problem+json`
(RFC 9457): its `type` says which kind it is, for programs; its `detail` what to do, for people.
"""


def create_app(
    settings: ServeSettings,
    live_model: LiveModel | None = None,
    *,
    on_fatal: Callable[[errors.FlowersError], None] = lambda _: None,
) -> FastAPI:
    """The service as an ASGI app; nothing runs before its lifespan begins.

    Args:
        settings: all knobs; nothing below this function reads them.
        live_model: for tests that must command the engine; default: as the settings say.
        on_fatal: told what no other version can mend, or that the engine is wedged; then the process should end.
    """
    live_model = live_model or _watch_store(settings, on_fatal)
    metrics = Metrics()
    batcher = MicroBatcher(
        max_batch_size=settings.max_batch_size,
        max_queue_size=settings.max_queue_size,
        on_batch=metrics.batch_size.observe,
    )
    admission = Admission(max_queue_size=settings.max_queue_size, num_computing=lambda: batcher.num_computing)
    metrics.registry.register(ServiceCollector(live_model.health, admission, live_model))
    predictor = Predictor(
        live_model,
        admission,
        batcher,
        limits=ImageLimits(settings.max_image_bytes, settings.max_image_pixels),
        decode_threads=settings.decode_threads,
    )

    watchdog = Watchdog(live_model, batcher, on_fatal)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        live_model.start()  # in the background: the probes answer while the model loads
        watchdog.start()
        yield
        await watchdog.stop()
        await live_model.stop()
        predictor.close()
        batcher.close()

    app = FastAPI(
        title="Flowers",
        version=__version__,
        description=_DESCRIPTION,
        lifespan=lifespan,
        docs_url=None,  # ours works offline
        redoc_url=None,
        redirect_slashes=False,
    )
    app.state.service = Service(
        health=live_model.health,
        live_model=live_model,
        admission=admission,
        predictor=predictor,
        metrics=metrics,
        max_image_bytes=settings.max_image_bytes,
        body_timeout_s=settings.body_timeout_s,
        request_timeout_s=settings.request_timeout_s,
    )
    for room in (predict, models, health, docs):
        app.include_router(room.router)
    problems.add_handlers(app)
    app.add_middleware(LingeringClose, health=live_model.health)
    app.add_middleware(Telemetry, metrics=metrics, access_log=settings.access_log)  # added last: outermost
    return app


def _watch_store(settings: ServeSettings, on_fatal: Callable[[errors.FlowersError], None]) -> LiveModel:
    def load(folder: Path) -> Engine:
        from service.engines.select import load_engine  # on the loading thread: the import may take seconds

        return load_engine(folder, engine=settings.engine, device=settings.device, threads=settings.engine_threads)

    return LiveModel(
        settings.model_store,
        settings.model,
        load=load,
        health=Health(),
        max_batch_size=settings.max_batch_size,
        reload_interval_s=settings.reload_interval_s,
        on_fatal=on_fatal,
    )
