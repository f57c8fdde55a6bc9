"""Protocols of other clients, as the app sees them: their routes, their probes, and the form of their errors."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from starlette.routing import Match, Route


@dataclass(frozen=True)
class Protocol:
    """Translation of one protocol.

    Attributes:
        routes: Plain routes. FastAPI's own way to a handler costs the event loop more time.
        paths: Paths with the errors of protocols. The paths below them have these errors, too.
        probes: Templates of the routes whose GET wants no API key.
    """

    routes: Sequence[Route]
    paths: frozenset[str]
    probes: frozenset[str] = frozenset()


class Protocols:
    """Protocols that are switched on."""

    def __init__(self, protocols: Iterable[Protocol] = ()) -> None:
        protocols = tuple(protocols)
        self.routes = [route for protocol in protocols for route in protocol.routes]
        self._probes = [
            route
            for protocol in protocols
            for route in protocol.routes
            if route.path in protocol.probes and "GET" in (route.methods or ())
        ]
        self._paths = frozenset(path for protocol in protocols for path in protocol.paths)

    def has_path(self, path: str) -> bool:
        """Return whether a path belongs to a protocol. Its errors are `{"error": "<sentence>"}`."""
        return path in self._paths or any(path.startswith(f"{folder}/") for folder in self._paths)

    def is_probe(self, method: str, path: str) -> bool:
        """Return whether a request is a probe, which wants no API key."""
        return find_route(self._probes, method, path) is not None

    def find_prediction(self, path: str) -> str | None:
        """Return the template of the route that predicts at this path. None means that there is none."""
        route = find_route(self.routes, "POST", path) if self.has_path(path) else None
        return route.path if route else None


def find_route(routes: Iterable[Route], method: str, path: str) -> Route | None:
    """Return the route that takes requests of this method and path."""
    scope = {"type": "http", "method": method, "path": path, "root_path": ""}
    return next((route for route in routes if route.matches(scope)[0] is Match.FULL), None)
