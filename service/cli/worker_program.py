"""Program of a worker. A supervisor can name it without importing the app."""

from service.settings import ServeSettings
from service.workers.worker import Place


def run_worker(settings: ServeSettings, place: Place) -> None:
    """Be a worker in this process until the supervisor ends it."""
    from service.cli.serve_app import serve_as_worker  # the origin of the workers has imported it

    serve_as_worker(settings, place)
