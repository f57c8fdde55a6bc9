"""`flowers serve`: listen, and answer in one process or in several workers."""

import sys

import structlog

from service.cli.listening import listen
from service.engines.found import gpu_memory_bytes
from service.errors import SettingsError
from service.logs import configure_logging
from service.machine import count_cores, memory_left
from service.remote_store.cache import check_platform
from service.remote_store.location import StoreUrl
from service.remote_store.reader import check_installed
from service.setting_checks import check_keys_variable
from service.settings import ServeSettings
from service.workers.count import LIGHT_WORKER_BYTES, TENSORFLOW_WORKER_BYTES, count_workers

log: structlog.typing.FilteringBoundLogger = structlog.get_logger()


def serve(*, settings: ServeSettings | None = None) -> int:
    """Serve a model over HTTP until SIGTERM, SIGHUP or Ctrl-C.

    The socket is open at once. /startupz and /readyz say when the model is loaded. On SIGTERM or SIGHUP, /readyz turns
    false. Requests are taken for drain_delay_s more. Then new ones are refused, and accepted ones are answered. Ctrl-C
    skips the delay. A second signal ends the service at once.
    """
    settings = settings or ServeSettings()
    check_keys_variable(settings)
    if isinstance(settings.model_store, StoreUrl):
        check_installed(settings.model_store)
        check_platform()
    num_workers = _count_workers(settings)
    if num_workers > 1:
        from service.cli.serve_workers import serve_with_workers

        serve_with_workers(settings, num_workers)
    log_writer = configure_logging(settings.log_format)
    if settings.workers not in ("auto", 1):
        log.warning("workers unavailable", wanted=settings.workers, reason="Several workers need Linux. One serves.")
    listener = listen(settings.host, settings.port)
    from service.cli.serve_app import serve_alone  # the socket is there before the app is imported

    return serve_alone(settings, listener, log_writer)


def _count_workers(settings: ServeSettings) -> int:
    """Return the number of workers. Raises `SettingsError` for more than images may wait."""
    wanted = settings.workers
    if sys.platform != "linux":
        return 1
    if wanted == "auto":
        gpu_bytes = gpu_memory_bytes() if settings.wish.may_use_gpu else 0
        is_light = settings.engine != "savedmodel" and not gpu_bytes
        return count_workers(
            num_cores=min(settings.engine_threads or count_cores(), settings.max_queue_size),
            memory_bytes=memory_left(),
            worker_bytes=LIGHT_WORKER_BYTES if is_light else TENSORFLOW_WORKER_BYTES,
            gpu_bytes=gpu_bytes,
            gpu_worker_bytes=settings.gpu_memory_limit_mb * 1024 * 1024,
        )
    if wanted > settings.max_queue_size:
        raise SettingsError(
            f"{wanted} workers share a queue of {settings.max_queue_size} images. Raise --max-queue-size "
            "(FLOWERS_MAX_QUEUE_SIZE), or take fewer --workers."
        )
    return wanted
