"""The real service in a thread of this process, over a real socket, on one port for as often as it starts."""

import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import uvicorn
from support.fakes import Loader
from support.running import running


@contextmanager
def listening(store: Path, port: int = 0, loader: Loader | None = None, **settings: Any) -> Iterator[str]:
    """Its address. The model is loaded before it listens, and requests in flight are answered at the end.

    `loader` has fake engines. Without one the real engine answers.
    """
    servers: list[uvicorn.Server] = []
    is_listening = threading.Event()
    addresses: list[str] = []

    async def serve() -> None:
        async with running(store, loader, access_log=False, **settings) as service:
            servers.append(uvicorn.Server(uvicorn.Config(service.app, lifespan="off", log_config=None)))
            with socket.create_server(("127.0.0.1", port)) as listener:
                addresses.append(f"http://127.0.0.1:{listener.getsockname()[1]}")
                is_listening.set()
                await servers[0].serve(sockets=[listener])

    thread = threading.Thread(target=asyncio.run, args=(serve(),), daemon=True)
    thread.start()
    try:
        assert is_listening.wait(60)
        yield addresses[0]
    finally:
        servers[0].should_exit = True
        thread.join()
