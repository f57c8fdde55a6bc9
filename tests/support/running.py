"""The service in this process, its lifespan driven, spoken to over httpx's ASGI transport."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from fastapi import FastAPI
from support.fakes import Loader

from service.api.app import create_app
from service.api.service import Service
from service.inference.health import Health
from service.inference.live_model import LiveModel
from service.settings import ServeSettings


@dataclass(frozen=True)
class Running:
    """A started app; `look` makes it look at its store, which it does not do by itself."""

    app: FastAPI
    client: httpx.AsyncClient

    @property
    def service(self) -> Service:
        service = self.app.state.service
        assert isinstance(service, Service)
        return service

    async def look(self) -> None:
        await self.service.live_model.look()


@asynccontextmanager
async def running(
    store: Path, loader: Loader | None = None, *, look: bool = True, **settings: Any
) -> AsyncIterator[Running]:
    """The service on `store`, looked at once if `look`; on `loader`'s fake engines, or on the real one."""
    settings = {"reload_interval_s": 3600, "request_timeout_s": 60, **settings}  # a busy machine is slow to answer
    serve_settings = ServeSettings(model_store=store, **settings)
    live_model = None
    if loader is not None:
        live_model = LiveModel(
            store,
            serve_settings.model,
            load=loader,
            health=Health(),
            max_batch_size=serve_settings.max_batch_size,
            reload_interval_s=serve_settings.reload_interval_s,
        )
    app = create_app(serve_settings, live_model)
    transport = httpx.ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://flowers") as client,
    ):
        service = Running(app, client)
        if look:
            await service.look()
        yield service
